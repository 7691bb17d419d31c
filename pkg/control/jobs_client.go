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
