package wasi

import (
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

// HTTPModule and HTTPName are the one function beside WASI that guests may import:
//
//	http_request(request: i32, request_len: i32, answer: i32, answer_len: i32) -> i64
//
// The request and the answer are HTTP/1.1 messages as text, the request with an
// absolute URL in its first line, so that a program writes and reads them with what
// it has. The result is the length of what was written to answer, and in its upper
// half zero, or one of the codes below; then what was written is a line for people.
const (
	HTTPModule = "peercompute"
	HTTPName   = "http_request"
)

// The codes of http_request. Numbers are append-only.
const (
	HTTPOK          = 0
	HTTPDenied      = 1 // not on the list, or no network at all
	HTTPInvalid     = 2 // the request is malformed
	HTTPTooLarge    = 3 // the request or the answer
	HTTPTimeout     = 4
	HTTPUnavailable = 5 // no connection, or it broke
	HTTPFault       = 6 // the pointers are wrong; nothing was written
)

// Bounds and price of a request. It is paid for before it is made, by what it may
// come to, so that the price does not depend on the answer.
const (
	maxHTTPRequest = 1<<20 + 128<<10 // bytes
	maxHTTPAnswer  = 4<<20 + 128<<10
	httpCost       = 1_000_000
)

// OfferHTTP makes the function importable in rt.
func OfferHTTP(ctx context.Context, rt wazero.Runtime) error {
	_, err := rt.NewHostModuleBuilder(HTTPModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(func(ctx context.Context, mod api.Module, stack []uint64) {
			stack[0] = httpRequest(enter(ctx, mod, httpCost), stack)
		}), types("iiii"), []api.ValueType{api.ValueTypeI64}).Export(HTTPName).Instantiate(ctx)
	return err
}

func httpRequest(g *Guest, p []uint64) uint64 {
	n, room := uint64(uint32(p[1])), uint64(uint32(p[3]))
	room = min(room, maxHTTPAnswer)
	out, ok := g.bytes(p[2], room)
	if !ok {
		return HTTPFault << 32
	}
	fail := func(code uint64, text string) uint64 { return code<<32 | uint64(copy(out, text)) }
	if n > maxHTTPRequest {
		return fail(HTTPTooLarge, "the request is too large")
	}
	in, ok := g.bytes(p[0], n)
	if !ok {
		return HTTPFault << 32
	}
	g.Meter.Charge((n + room) / perUnit)
	if g.HTTP == nil {
		return fail(HTTPDenied, "this workload may not use the network; deploy it with --allow-host")
	}
	answer, code := g.HTTP(append([]byte(nil), in...), int(room))
	if len(answer) > len(out) {
		return fail(HTTPTooLarge, "the answer is too large")
	}
	return uint64(code)<<32 | uint64(copy(out, answer))
}
