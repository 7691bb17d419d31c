package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"

	"peercompute/pkg/mesh"
)

// Client talks to the node that owns a home directory.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient prepares a client; it connects on first use.
func NewClient(home string) *Client {
	c := &Client{socket: filepath.Join(home, SocketName)}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}}
	return c
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, mesh.Errorf(mesh.Unavailable, "no peerd answers at %s", c.socket).
			WithHint("start one with: peerd run   (or point --home at the home of one that runs)").Because(err)
	}
	return conn, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Whoami describes the node.
func (c *Client) Whoami(ctx context.Context) (w Whoami, err error) {
	return w, c.call(ctx, "GET", "/v1/whoami", nil, &w)
}

// Status is the node's state at a glance.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, "GET", "/v1/status", nil, &s)
}

// Peers lists the trust list, sorted by name.
func (c *Client) Peers(ctx context.Context) (ps []Peer, err error) {
	return ps, c.call(ctx, "GET", "/v1/peers", nil, &ps)
}

// Peer is one entry of the trust list, with what the peer uses of its grant.
func (c *Client) Peer(ctx context.Context, ref string) (p Peer, err error) {
	return p, c.call(ctx, "GET", "/v1/peers/"+url.PathEscape(ref), nil, &p)
}

// AddPeer trusts a peer.
func (c *Client) AddPeer(ctx context.Context, a AddPeer) (p Peer, err error) {
	return p, c.call(ctx, "POST", "/v1/peers", a, &p)
}

// AllowPeer changes a peer's grant.
func (c *Client) AllowPeer(ctx context.Context, ref string, g GrantChange) (p Peer, err error) {
	return p, c.call(ctx, "PATCH", "/v1/peers/"+url.PathEscape(ref), g, &p)
}

// RemovePeer ends trust. With keep, the peer's workloads go on running.
func (c *Client) RemovePeer(ctx context.Context, ref string, keep bool) (r RemovedPeer, err error) {
	return r, c.call(ctx, "DELETE", "/v1/peers/"+url.PathEscape(ref)+"?keep="+strconv.FormatBool(keep), nil, &r)
}

// Invite opens an invite; the answer holds its token.
func (c *Client) Invite(ctx context.Context, n NewInvite) (i Invite, err error) {
	return i, c.call(ctx, "POST", "/v1/invites", n, &i)
}

// Invites lists the open invites.
func (c *Client) Invites(ctx context.Context) (is []Invite, err error) {
	return is, c.call(ctx, "GET", "/v1/invites", nil, &is)
}

// WithdrawInvite closes an invite.
func (c *Client) WithdrawInvite(ctx context.Context, id string) (i Invite, err error) {
	return i, c.call(ctx, "DELETE", "/v1/invites/"+url.PathEscape(id), nil, &i)
}

// Join trusts the one who invited, and is trusted by it.
func (c *Client) Join(ctx context.Context, j JoinInvite) (p Peer, err error) {
	return p, c.call(ctx, "POST", "/v1/join", j, &p)
}

// Lockdown denies everybody, closes every connection and stops every workload.
func (c *Client) Lockdown(ctx context.Context) (l Lockdown, err error) {
	return l, c.call(ctx, "POST", "/v1/lockdown", nil, &l)
}

// Unlock makes the trust list count again.
func (c *Client) Unlock(ctx context.Context) (l Lockdown, err error) {
	return l, c.call(ctx, "DELETE", "/v1/lockdown", nil, &l)
}

// Pause refuses new work of peers, for a while or until Resume.
func (c *Client) Pause(ctx context.Context, p Pause) (s LendState, err error) {
	return s, c.call(ctx, "POST", "/v1/pause", p, &s)
}

// Resume ends a pause; the schedule counts again.
func (c *Client) Resume(ctx context.Context) (s LendState, err error) {
	return s, c.call(ctx, "DELETE", "/v1/pause", nil, &s)
}

// Lend is what this machine lends, and whether it does now.
func (c *Client) Lend(ctx context.Context) (l Lend, err error) {
	return l, c.call(ctx, "GET", "/v1/lend", nil, &l)
}

// SetLend changes what this machine lends.
func (c *Client) SetLend(ctx context.Context, ch LendChange) (l Lend, err error) {
	return l, c.call(ctx, "PATCH", "/v1/lend", ch, &l)
}

// ResetLend drops what was set, so that the configuration counts again.
func (c *Client) ResetLend(ctx context.Context) (l Lend, err error) {
	return l, c.call(ctx, "DELETE", "/v1/lend", nil, &l)
}

// Module is a module that is on the node already; mesh.NotFound if it is not.
func (c *Client) Module(ctx context.Context, digest string) (m Module, err error) {
	return m, c.call(ctx, "GET", "/v1/modules/"+url.PathEscape(digest), nil, &m)
}

// UploadModule stores a WASM module on the node, by digest.
func (c *Client) UploadModule(ctx context.Context, r io.Reader) (m Module, err error) {
	req, err := http.NewRequestWithContext(ctx, "POST", "http://peerd/v1/modules", r)
	if err != nil {
		return m, err
	}
	req.Header.Set("Content-Type", "application/wasm")
	return m, c.do(req, &m)
}

// Deploy deploys and reports each event to on. It returns the workload as last
// reported; on failure the error, after on has seen the event with its log.
func (c *Client) Deploy(ctx context.Context, d Deploy, on func(DeployEvent)) (Workload, error) {
	return c.deploy(ctx, "/v1/deploy", d, on)
}

// History lists what is remembered of a workload's revisions, oldest first.
func (c *Client) History(ctx context.Context, ref, peer string) (rs []Revision, err error) {
	return rs, c.call(ctx, "GET", workloadPath(ref, "/history", peer), nil, &rs)
}

// Rollback makes an earlier revision serve again, and reports as Deploy does.
func (c *Client) Rollback(ctx context.Context, ref, peer string, b Rollback, on func(DeployEvent)) (Workload, error) {
	return c.deploy(ctx, workloadPath(ref, "/rollback", peer), b, on)
}

func (c *Client) deploy(ctx context.Context, path string, body any, on func(DeployEvent)) (Workload, error) {
	var last Workload
	resp, err := c.stream(ctx, "POST", path, body)
	if err != nil {
		return last, err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var ev DeployEvent
		if err := dec.Decode(&ev); err != nil {
			return last, mesh.Errorf(mesh.Unavailable, "peerd ended the answer early; the deploy may still go on").
				WithHint("look with: peerctl ps").Because(err)
		}
		if ev.Workload != nil {
			last = *ev.Workload
		}
		if on != nil {
			on(ev)
		}
		if ev.Error != nil {
			return last, ev.Error.Err()
		}
		if ev.Done {
			return last, nil
		}
	}
}

// Workloads lists what runs here and what this node deployed elsewhere; with
// peer set, only what runs there.
func (c *Client) Workloads(ctx context.Context, peer string) (ws []Workload, err error) {
	return ws, c.call(ctx, "GET", "/v1/workloads?peer="+url.QueryEscape(peer), nil, &ws)
}

// Workload inspects one. A ref is a name or a unique prefix of an ID; peer narrows
// the search and may be empty.
func (c *Client) Workload(ctx context.Context, ref, peer string) (w Workload, err error) {
	return w, c.call(ctx, "GET", workloadPath(ref, "", peer), nil, &w)
}

// Stop ends a workload and keeps its record and log.
func (c *Client) Stop(ctx context.Context, ref, peer string) (w Workload, err error) {
	return w, c.call(ctx, "POST", workloadPath(ref, "/stop", peer), nil, &w)
}

// Restart ends the run of a workload and begins another.
func (c *Client) Restart(ctx context.Context, ref, peer string) (w Workload, err error) {
	return w, c.call(ctx, "POST", workloadPath(ref, "/restart", peer), nil, &w)
}

// Remove deletes a workload; a running one is stopped first only with force.
func (c *Client) Remove(ctx context.Context, ref, peer string, force bool) (w Workload, err error) {
	return w, c.call(ctx, "DELETE", workloadPath(ref, "", peer)+"&force="+strconv.FormatBool(force), nil, &w)
}

// Publish gives a workload a public name.
func (c *Client) Publish(ctx context.Context, ref, peer string, p Publish) (w Workload, err error) {
	return w, c.call(ctx, "POST", workloadPath(ref, "/publish", peer), p, &w)
}

// Unpublish withdraws it.
func (c *Client) Unpublish(ctx context.Context, ref, peer string) (w Workload, err error) {
	return w, c.call(ctx, "DELETE", workloadPath(ref, "/publish", peer), nil, &w)
}

func lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return mesh.Errorf(mesh.Unavailable, "lost the connection to peerd").Because(err)
}

func workloadPath(ref, verb, peer string) string {
	return "/v1/workloads/" + url.PathEscape(ref) + verb + "?peer=" + url.QueryEscape(peer)
}

// stream sends a body and returns the answer, whose body the caller reads and closes.
func (c *Client) stream(ctx context.Context, method, path string, in any) (*http.Response, error) {
	b, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://peerd"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return c.roundTrip(req)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://peerd"+path, body)
	if err != nil {
		return err
	}
	return c.do(req, out)
}

func (c *Client) do(req *http.Request, out any) error {
	resp, err := c.roundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("cannot read the answer of peerd: %w", err)
	}
	return nil
}

func (c *Client) roundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		var me *mesh.Error
		if errors.As(err, &me) {
			return nil, me
		}
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, decodeError(resp)
	}
	return resp, nil
}

func decodeError(resp *http.Response) error {
	var e Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&e); err != nil || e.Msg == "" {
		return fmt.Errorf("peerd answered %s", resp.Status)
	}
	return e.Err()
}

// RemoteError is an error that a node reported, with the name of the peer that
// refused when it was another one.
type RemoteError struct {
	Cause *mesh.Error
	Peer  string
}

// Err turns the JSON form into an error whose chain holds a *mesh.Error.
func (e *Error) Err() error {
	return &RemoteError{Cause: &mesh.Error{Kind: e.Code, Rule: e.Rule, Msg: e.Msg, Hint: e.Hint}, Peer: e.Peer}
}

// Unwrap lets errors.As find the mesh.Error.
func (e *RemoteError) Unwrap() error { return e.Cause }

func (e *RemoteError) Error() string {
	if e.Peer != "" {
		return e.Peer + " refused: " + e.Cause.Msg
	}
	return e.Cause.Msg
}
