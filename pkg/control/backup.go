package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"peercompute/pkg/mesh"
)

// This file is the part of the local API that makes an encrypted backup of a node.

// Export is POST /v1/identity/export. The answer is the backup, encrypted.
type Export struct {
	Passphrase string `json:"passphrase"`
}

const (
	// MinPassphrase is the least length of a backup's passphrase, in bytes.
	MinPassphrase = 12
	maxPassphrase = 1 << 10 // bytes
	// MaxBackup bounds a backup that is read, in bytes.
	MaxBackup = 33 << 20
)

// CheckPassphrase refuses passphrases that are too short to protect a key.
func CheckPassphrase(p string) error {
	if len(p) < MinPassphrase || len(p) > maxPassphrase {
		return mesh.Errorf(mesh.Invalid, "the passphrase has %d characters; from %d to %d are taken", len(p), MinPassphrase, maxPassphrase).WithRule("backup.passphrase").
			WithHint("whoever has the file can guess as fast as the machines allow: take some random words")
	}
	return nil
}

// ReadPassphrase reads a passphrase from a file, or from stdin if its name is "-".
// The end of its line is no part of it.
func ReadPassphrase(file string, stdin io.Reader) (string, error) {
	r := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", mesh.Errorf(mesh.Invalid, "cannot read the passphrase").Because(err)
		}
		defer f.Close()
		r = f
	}
	data, err := io.ReadAll(io.LimitReader(r, maxPassphrase+3))
	if err != nil {
		return "", mesh.Errorf(mesh.Invalid, "cannot read the passphrase").Because(err)
	}
	p := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case p == "":
		return "", mesh.Errorf(mesh.Invalid, "the passphrase is empty")
	case len(p) > maxPassphrase || strings.ContainsAny(p, "\r\n\x00"):
		return "", mesh.Errorf(mesh.Invalid, "the passphrase is not one line of at most %d characters", maxPassphrase)
	}
	return p, nil
}

func (s *Server) backupRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/identity/export", func(w http.ResponseWriter, r *http.Request) {
		in, err := body[Export](r)
		if err == nil {
			err = CheckPassphrase(in.Passphrase)
		}
		var data []byte
		if err == nil {
			data, err = s.cfg.Members.Export(r.Context(), in)
		}
		if err != nil {
			writeError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data) // a client that went away
	})
}

// Export writes an encrypted backup of the node to w and returns its size.
func (c *Client) Export(ctx context.Context, e Export, w io.Writer) (int64, error) {
	resp, err := c.stream(ctx, "POST", "/v1/identity/export", e)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(w, io.LimitReader(resp.Body, MaxBackup+1))
	if err == nil && (n > MaxBackup || n != resp.ContentLength) {
		err = errors.New("its length is not what was said")
	}
	if err != nil {
		return n, mesh.Errorf(mesh.Unavailable, "the backup did not arrive whole").WithHint("export it again").Because(err)
	}
	return n, nil
}
