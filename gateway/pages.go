package gateway

import (
	"html"
	"net/http"
	"strconv"
	"strings"
)

// page is one of the gateway's own answers. Its texts are constants or labels
// that passed parseHost: nothing else of a request is ever shown.
type page struct {
	status     int
	title      string
	text       string
	retryAfter int // seconds; 0 = not said
}

var (
	pageUnknown = page{
		status: http.StatusNotFound, title: "No such app",
		text: "Nothing is published under this name. Its owner may have stopped it, or the address may be mistyped: " +
			"the part before the first dot must match exactly, as printed by \"peerctl ps\".",
	}
	pageForeign = page{
		status: http.StatusNotFound, title: "Not served here",
		text: "This gateway does not serve that host. Check the address.",
	}
	pageBadRequest = page{
		status: http.StatusBadRequest, title: "Bad request",
		text: "The request is malformed, and was not passed on.",
	}
	pageMethod = page{
		status: http.StatusMethodNotAllowed, title: "Method not allowed",
		text: "This gateway does not carry CONNECT or TRACE.",
	}
	pageSlowRequest = page{
		status: http.StatusRequestTimeout, title: "Request timeout",
		text: "The request's body came too slowly.",
	}
	pageRate = page{
		status: http.StatusTooManyRequests, title: "Too many requests",
		text: "You, or everybody together, asked for this too often. Wait a moment and try again.", retryAfter: 1,
	}
	pageBusy = page{
		status: http.StatusServiceUnavailable, title: "Busy",
		text: "Too many requests to this app are under way. Try again in a moment.", retryAfter: 1,
	}
	pageTunnel = page{
		status: http.StatusServiceUnavailable, title: "Not connected",
		text: "The machine that runs this app is not connected to the gateway now. It usually comes back by itself.", retryAfter: 5,
	}
	pageRefused = page{
		status: http.StatusBadGateway, title: "The app does not answer",
		text: "The machine that runs this app is connected, but the app does not accept requests. It may be starting or stopped.", retryAfter: 2,
	}
	pageBroken = page{
		status: http.StatusBadGateway, title: "The app broke off",
		text: "The app closed the connection, or answered with something that is not HTTP.",
	}
	pageTimeout = page{
		status: http.StatusGatewayTimeout, title: "The app is too slow",
		text: "The app took the request and did not answer in time.",
	}
	pageLanding = page{
		status: http.StatusOK, title: "Peer Compute gateway",
		text: "Apps are reached at names under this domain, one per app. Publish yours with: peerctl deploy IMAGE --publish",
	}
)

// serve writes the page, as HTML to browsers and as text to anything else.
func (pg page) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	if pg.status == http.StatusBadRequest {
		h.Set("Connection", "close") // who knows where its next request would begin
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if pg.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(pg.retryAfter))
	}
	var body string
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		body = pageHead + "<title>" + html.EscapeString(pg.title) + "</title><main><h1>" + html.EscapeString(pg.title) +
			"</h1><p>" + html.EscapeString(pg.text) + "</p></main>\n"
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		body = pg.title + ". " + pg.text + "\n"
		if pg.status >= 400 {
			body = strconv.Itoa(pg.status) + " " + body
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(pg.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(body))
	}
}

const pageHead = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">` +
	`<style>body{font:18px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:34em;padding:0 1em;color:#222;background:#fff}` +
	`h1{font-size:1.4em}@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}}</style>`
