package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"peercompute/pkg/mesh"
)

// LogOptions selects part of a log.
type LogOptions struct {
	Follow bool
	Tail   int       // the last lines only, of both streams; 0 = all that is kept
	Since  time.Time // what was written before, by the clock of its host, is left out
	Stream mesh.LogStream
}

// LogReader reads a log entry by entry; io.EOF is its end.
type LogReader interface {
	Next() (mesh.LogEntry, error)
	Close() error
}

// LogLine is one line of a log as JSON.
type LogLine struct {
	Time   time.Time      `json:"time,omitzero"` // when its host took it
	Stream mesh.LogStream `json:"stream"`
	Text   string         `json:"text"`           // without its newline; what is not UTF-8 is replaced
	Part   bool           `json:"part,omitempty"` // the line goes on with the next of the same stream
}

func lineOf(e mesh.LogEntry) LogLine {
	text, whole := bytes.CutSuffix(e.Text, []byte("\n"))
	return LogLine{Time: e.Time, Stream: e.Stream, Text: string(text), Part: !whole}
}

func logOptions(r *http.Request) (o LogOptions, err error) {
	q := r.URL.Query()
	if o.Follow, err = flag(r, "follow"); err != nil {
		return o, err
	}
	if v := q.Get("tail"); v != "" {
		if o.Tail, err = strconv.Atoi(v); err != nil || o.Tail < 0 {
			return o, mesh.Errorf(mesh.Invalid, "tail=%q is not a number of lines", v)
		}
	}
	if v := q.Get("since"); v != "" {
		if o.Since, err = time.Parse(time.RFC3339Nano, v); err != nil {
			return o, mesh.Errorf(mesh.Invalid, "since=%q is not a time", v)
		}
	}
	if o.Stream = mesh.LogStream(q.Get("stream")); !o.Stream.Valid() {
		return o, mesh.Errorf(mesh.Invalid, "stream=%q is not stdout or stderr", o.Stream)
	}
	return o, nil
}

// logs sends a log as plain text, or with lines=true one LogLine a line.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	lines, err := flag(r, "lines")
	if err != nil {
		writeError(w, err)
		return
	}
	o, err := logOptions(r)
	if err != nil {
		writeError(w, err)
		return
	}
	log, err := s.cfg.Workloads.Logs(r.Context(), r.PathValue("ref"), r.URL.Query().Get("peer"), o)
	if err != nil {
		writeError(w, err)
		return
	}
	defer log.Close()
	flush := http.NewResponseController(w)
	write := func(e mesh.LogEntry) error {
		_, err := w.Write(e.Text)
		return err
	}
	kind := "text/plain; charset=utf-8"
	if lines {
		kind = "application/x-ndjson"
		enc := json.NewEncoder(w)
		write = func(e mesh.LogEntry) error { return enc.Encode(lineOf(e)) }
	}
	w.Header().Set("Content-Type", kind)
	_ = flush.Flush() // the caller learns that the log exists before its first line
	for {
		e, err := log.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			if r.Context().Err() == nil {
				panic(http.ErrAbortHandler) // cut, so that the client does not take it for the end
			}
			return
		}
		if write(e) != nil || o.Follow && flush.Flush() != nil {
			return
		}
	}
}

func (c *Client) openLogs(ctx context.Context, ref, peer string, o LogOptions, lines bool) (io.ReadCloser, error) {
	q := url.Values{"follow": {strconv.FormatBool(o.Follow)}, "tail": {strconv.Itoa(o.Tail)}, "stream": {string(o.Stream)}}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	if lines {
		q.Set("lines", "true")
	}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://peerd"+workloadPath(ref, "/logs", peer)+"&"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Logs streams a workload's log as plain bytes.
func (c *Client) Logs(ctx context.Context, ref, peer string, o LogOptions) (io.ReadCloser, error) {
	return c.openLogs(ctx, ref, peer, o, false)
}

// LogLines calls each with every line of a workload's log.
func (c *Client) LogLines(ctx context.Context, ref, peer string, o LogOptions, each func(LogLine) error) error {
	body, err := c.openLogs(ctx, ref, peer, o, true)
	if err != nil {
		return err
	}
	defer body.Close()
	return eachOf(body, func(err error) error { return lost(ctx, err) }, each)
}
