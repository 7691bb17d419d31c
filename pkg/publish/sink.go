package publish

import (
	"io"
	"net"
)

// directReader is a stream that can hand short pieces over as they come, without
// waking its reader. A *peernet.Stream is one.
type directReader interface {
	ReadOr(b []byte, direct func([]byte) (int, error)) (int, error)
}

// tryWriter is a connection that can write what there is room for now. A
// *socket.Conn is one.
type tryWriter interface {
	net.Conn
	TryWrite(b []byte) (int, error)
}

// sink is the workload's end of a request. A request that fits into the socket's
// buffer, as nearly all do, is written there by the goroutine that received it:
// to wake another one takes longer than all the rest of the way through here.
type sink struct {
	tryWriter
	sp     *splice
	from   directReader
	failed error // of direct
}

// newSink is conn, as a sink where both ends can do that.
func newSink(sp *splice, conn net.Conn) io.Writer {
	from, ok := sp.stream.(directReader)
	to, can := conn.(tryWriter)
	if !ok || !can {
		return conn
	}
	return &sink{tryWriter: to, sp: sp, from: from}
}

// read waits for what direct does not take.
func (k *sink) read(b []byte) (int, error) {
	n, err := k.from.ReadOr(b, k.direct)
	if err != nil && k.failed != nil {
		err = writeError{k.failed}
	}
	return n, err
}

// direct writes what the socket takes at once.
func (k *sink) direct(b []byte) (int, error) {
	k.sp.touch()
	n, err := k.TryWrite(b)
	k.failed = err
	return n, err
}
