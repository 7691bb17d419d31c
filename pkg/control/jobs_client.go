package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"peercompute/pkg/frame"
)

// JobStreams are the ends of a job in the caller's hands.
type JobStreams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Begun          func(Started) // hears where it runs; may be nil
}

// Run executes a job in the foreground: stdin goes in, stdout and stderr come
// out, and its end is returned. The job ends when ctx does.
func (c *Client) Run(ctx context.Context, r Run, s JobStreams) (RunResult, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return RunResult{}, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return RunResult{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	req, err := http.NewRequest("POST", "http://peerd/v1/run", bytes.NewReader(body))
	if err != nil {
		return RunResult{}, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", UpgradeJob)
	if err := req.Write(conn); err != nil {
		return RunResult{}, fmt.Errorf("cannot send to peerd: %w", err)
	}
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return RunResult{}, lost(ctx, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return RunResult{}, decodeError(resp)
	}
	go func() { _ = frame.Copy(conn, FrameStdin, s.Stdin) }()
	return s.follow(ctx, br)
}

// follow takes a job's frames until the last one.
func (s JobStreams) follow(ctx context.Context, r io.Reader) (RunResult, error) {
	for {
		typ, payload, err := frame.Read(r)
		if err != nil {
			return RunResult{}, lost(ctx, err)
		}
		switch typ {
		case FrameBegun:
			var b Started
			if err = json.Unmarshal(payload, &b); err == nil && s.Begun != nil {
				s.Begun(b)
			}
		case FrameStdout:
			_, err = s.Stdout.Write(payload)
		case FrameStderr:
			_, err = s.Stderr.Write(payload)
		case FrameExit:
			var x RunResult
			return x, json.Unmarshal(payload, &x)
		case FrameError:
			var e Error
			if err := json.Unmarshal(payload, &e); err != nil {
				return RunResult{}, err
			}
			return RunResult{}, e.Err()
		}
		if err != nil {
			return RunResult{}, err
		}
	}
}

// UploadInput stores the input of a job that is to be queued.
func (c *Client) UploadInput(ctx context.Context, r io.Reader) (in Input, err error) {
	req, err := http.NewRequestWithContext(ctx, "POST", "http://peerd/v1/inputs", r)
	if err != nil {
		return in, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	return in, c.do(req, &in)
}

// SubmitJob queues a job; it is on its peer's disk when this returns.
func (c *Client) SubmitJob(ctx context.Context, s SubmitJob) (j Job, err error) {
	return j, c.call(ctx, "POST", "/v1/jobs", s, &j)
}

// Jobs lists the jobs that this node queued anywhere and those that others queued
// here, the newest first; with peer set, only what is there.
func (c *Client) Jobs(ctx context.Context, peer string) (js []Job, err error) {
	return js, c.call(ctx, "GET", "/v1/jobs?peer="+url.QueryEscape(peer), nil, &js)
}

// Job is one of them. A ref is an ID or a unique prefix of one.
func (c *Client) Job(ctx context.Context, ref string) (j Job, err error) {
	return j, c.call(ctx, "GET", "/v1/jobs/"+url.PathEscape(ref), nil, &j)
}

// CancelJob ends a job.
func (c *Client) CancelJob(ctx context.Context, ref string) (j Job, err error) {
	return j, c.call(ctx, "POST", "/v1/jobs/"+url.PathEscape(ref)+"/cancel", nil, &j)
}

// JobOutput copies what a job wrote into s and returns how it ended, if it has.
func (c *Client) JobOutput(ctx context.Context, ref string, o JobOutput, s JobStreams) (RunResult, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return RunResult{}, err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://peerd/v1/jobs/"+url.PathEscape(ref)+"/output", bytes.NewReader(b))
	if err != nil {
		return RunResult{}, err
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return RunResult{}, err
	}
	defer resp.Body.Close()
	return s.follow(ctx, bufio.NewReader(resp.Body))
}

// Verify repeats the run of a receipt on another peer.
func (c *Client) Verify(ctx context.Context, v Verify) (r VerifyResult, err error) {
	return r, c.call(ctx, "POST", "/v1/verify", v, &r)
}

// Receipts lists receipts, the newest first.
func (c *Client) Receipts(ctx context.Context, q ReceiptQuery) (rs []Receipt, err error) {
	return rs, c.call(ctx, "GET", fmt.Sprintf("/v1/receipts?peer=%s&limit=%d", url.QueryEscape(q.Peer), q.Limit), nil, &rs)
}

// Receipt is one of them with its envelope. id may be a unique prefix.
func (c *Client) Receipt(ctx context.Context, id string) (r Receipt, err error) {
	return r, c.call(ctx, "GET", "/v1/receipts/"+url.PathEscape(id), nil, &r)
}

// CheckReceipt verifies the signature of a receipt from anywhere, and says what it
// states. It asks no other machine.
func (c *Client) CheckReceipt(ctx context.Context, f ReceiptFile) (r Receipt, err error) {
	return r, c.call(ctx, "POST", "/v1/receipts/check", f, &r)
}
