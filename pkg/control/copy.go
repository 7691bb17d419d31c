package control

import (
	"context"
	"net/http"

	"peercompute/pkg/archive"
)

// Copy is POST /v1/workloads/{ref}/copy, which upgrades to UpgradeSession. A tar archive
// follows as FrameStdin up (with FrameCredit down) or FrameStdout down; FrameExit, with a
// CopyReport as JSON, or FrameError is the last.
type Copy struct {
	Path string `json:"path"`           // in the workload; absolute
	In   bool   `json:"in,omitempty"`   // into the workload
	Tree bool   `json:"tree,omitempty"` // what goes in is one tree, which Path may give a new name
}

// CopyReport is what was copied.
type CopyReport = archive.Report

func (s *Server) copy(w http.ResponseWriter, r *http.Request) {
	order, err := body[Copy](r)
	s.inside(w, r, err, func(ctx context.Context, ref, peer string, begin func() (Streams, error)) (any, error) {
		return s.cfg.Workloads.Copy(ctx, ref, peer, order, begin)
	})
}

// Copy copies files into or out of a workload, as a tar archive. It ends with ctx.
func (c *Client) Copy(ctx context.Context, ref, peer string, order Copy, io Streams) (CopyReport, error) {
	var did CopyReport
	err := c.inside(ctx, workloadPath(ref, "/copy", peer), order, order.In, io, &did)
	return did, err
}
