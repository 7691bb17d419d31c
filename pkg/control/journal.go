package control

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"peercompute/pkg/mesh"
)

// This file is the part of the local API that tells what a node decided and did:
// its audit log and its events.

// AuditQuery narrows GET /v1/audit.
type AuditQuery struct {
	Last  int       // entries; 0 = all that are kept
	Peer  string    // name or ID of the peer that acted or was acted upon, or "local"; empty = all
	Since time.Time // zero = from the beginning
}

// AuditEntry is one line of the audit log.
type AuditEntry struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"` // a peer's local name or ID, "local" for the person here, "node" for peerd itself
	ActorID string    `json:"actor_id,omitempty"`
	Action  string    `json:"action"`
	Subject string    `json:"subject,omitempty"`
	Rule    string    `json:"rule,omitempty"`
	Outcome string    `json:"outcome"` // done, refused
	Detail  string    `json:"detail,omitempty"`
	Count   int       `json:"count,omitempty"` // how many more like the one before
	Hash    string    `json:"hash"`
}

// AuditReport is the answer to GET and POST /v1/audit/verify: the chain holds.
type AuditReport struct {
	Entries  int    `json:"entries"`
	First    uint64 `json:"first"` // sequence number of the oldest entry; older ones were dropped
	HeadSeq  uint64 `json:"head_seq"`
	HeadHash string `json:"head_hash"`
	// Standing says of an export how its head stands in this node's log: held,
	// dropped (too old to tell) or foreign. It is empty for the log itself.
	Standing string `json:"standing,omitempty"`
	// Witnessed is how many peers' countersignatures of this node's log it agrees
	// with.
	Witnessed int `json:"witnessed,omitempty"`
}

// EventQuery narrows GET /v1/events.
type EventQuery struct {
	Follow bool
	Last   int      // of those kept
	Types  []string // empty = all
}

// Event is one thing that happened on the node.
type Event struct {
	Seq     uint64      `json:"seq"`
	Time    time.Time   `json:"time"`
	Type    string      `json:"type"`  // trust, admission, workload, tunnel, connection
	Event   string      `json:"event"` // "grant.put", "refused", "running", "up"
	Peer    string      `json:"peer,omitempty"`
	PeerID  mesh.PeerID `json:"peer_id,omitempty"`
	Subject string      `json:"subject,omitempty"`
	Rule    string      `json:"rule,omitempty"`
	Detail  string      `json:"detail,omitempty"`
	Missed  uint64      `json:"missed,omitempty"` // events that this reader lost just before this one
}

// Journal is what every node answers about what it decided and did.
type Journal interface {
	Audit(ctx context.Context, q AuditQuery, emit func(AuditEntry) error) error
	// ExportAudit writes the whole log as lines that can be verified.
	ExportAudit(ctx context.Context, w io.Writer) error
	VerifyAudit(ctx context.Context) (AuditReport, error)
	// VerifyExport verifies lines that ExportAudit wrote, of any node.
	VerifyExport(ctx context.Context, r io.Reader) (AuditReport, error)
	Events(ctx context.Context, q EventQuery, emit func(Event) error) error
}

const maxExport = 256 << 20 // bytes of an export to verify

func journalRoutes(mux *http.ServeMux, get func(string, handler), j Journal) {
	get("GET /v1/audit/verify", func(r *http.Request) (any, error) { return j.VerifyAudit(r.Context()) })
	get("POST /v1/audit/verify", func(r *http.Request) (any, error) {
		return j.VerifyExport(r.Context(), http.MaxBytesReader(nil, r.Body, maxExport))
	})
	mux.HandleFunc("GET /v1/audit", func(w http.ResponseWriter, r *http.Request) {
		v := r.URL.Query()
		q := AuditQuery{Peer: v.Get("peer")}
		var err error
		if q.Last, err = number(v, "last"); err == nil {
			if s := v.Get("since"); s != "" {
				if q.Since, err = time.Parse(time.RFC3339Nano, s); err != nil {
					err = mesh.Errorf(mesh.Invalid, "since=%q is not a time", s)
				}
			}
		}
		lines(w, r, err, nil, func(emit func(AuditEntry) error) error { return j.Audit(r.Context(), q, emit) })
	})
	mux.HandleFunc("GET /v1/audit/export", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		if err := j.ExportAudit(r.Context(), w); err != nil {
			panic(http.ErrAbortHandler) // cut, so that the client does not take it for the end
		}
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		v := r.URL.Query()
		var q EventQuery
		var err error
		if q.Follow, err = flag(r, "follow"); err == nil {
			q.Last, err = number(v, "last")
		}
		if s := v.Get("type"); s != "" {
			q.Types = strings.Split(s, ",")
		}
		lines(w, r, err, nil, func(emit func(Event) error) error { return j.Events(r.Context(), q, emit) })
	})
}

func number(v url.Values, name string) (int, error) {
	s := v.Get(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, mesh.Errorf(mesh.Invalid, "%s=%q is not a number from 0 up", name, s)
	}
	return n, nil
}

// Audit calls on for each entry that q asks for, the oldest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery, on func(AuditEntry) error) error {
	v := url.Values{"last": {strconv.Itoa(q.Last)}, "peer": {q.Peer}}
	if !q.Since.IsZero() {
		v.Set("since", q.Since.Format(time.RFC3339Nano))
	}
	return streamOf(ctx, c, "/v1/audit?"+v.Encode(), on)
}

// ExportAudit writes the whole audit log as lines that can be verified.
func (c *Client) ExportAudit(ctx context.Context, w io.Writer) error {
	resp, err := c.get(ctx, "/v1/audit/export")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return cutShort(ctx, err)
	}
	return nil
}

// VerifyAudit checks the whole chain of the node's audit log.
func (c *Client) VerifyAudit(ctx context.Context) (r AuditReport, err error) {
	return r, c.call(ctx, "GET", "/v1/audit/verify", nil, &r)
}

// VerifyExport has the node check an exported log.
func (c *Client) VerifyExport(ctx context.Context, export io.Reader) (r AuditReport, err error) {
	req, err := http.NewRequestWithContext(ctx, "POST", "http://peerd/v1/audit/verify", export)
	if err != nil {
		return r, err
	}
	return r, c.do(req, &r)
}

// Events calls on for each event that q asks for, until they end or ctx does.
func (c *Client) Events(ctx context.Context, q EventQuery, on func(Event) error) error {
	v := url.Values{"last": {strconv.Itoa(q.Last)}, "follow": {strconv.FormatBool(q.Follow)}, "type": {strings.Join(q.Types, ",")}}
	return streamOf(ctx, c, "/v1/events?"+v.Encode(), on)
}

func (c *Client) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://peerd"+path, nil)
	if err != nil {
		return nil, err
	}
	return c.roundTrip(req)
}

func streamOf[T any](ctx context.Context, c *Client, path string, on func(T) error) error {
	resp, err := c.get(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return eachOf(resp.Body, func(err error) error { return cutShort(ctx, err) }, on)
}

// eachOf calls on with every JSON value of r. cut says what it means that r breaks off.
func eachOf[T any](r io.Reader, cut func(error) error, on func(T) error) error {
	dec := json.NewDecoder(r)
	for {
		var v T
		if err := dec.Decode(&v); err == io.EOF {
			return nil
		} else if err != nil {
			return cut(err)
		}
		if err := on(v); err != nil {
			return err
		}
	}
}

func cutShort(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return mesh.Errorf(mesh.Unavailable, "peerd ended the answer early").Because(err)
}
