package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A frame between peerd and a worker is a header, big-endian, and a payload:
//
//	0  4  length of the payload, at most maxPayload
//	4  1  kind
//	5  4  call: the reply carries that of its request
//
// Files travel with the first byte of a frame (SCM_RIGHTS), at most maxFiles.
const (
	headerLen  = 9
	maxPayload = 2 << 20 // a record of observations and a spec of 64 KiB of strings fit, encoded
	maxFiles   = 4
	firstWrite = 4 << 10 // sent with the files in one system call, which the kernel does not split

	writeDeadline = 5 * time.Second // a side that does not read for so long is broken
)

type kind byte

// The kinds of frame. peerd asks, the worker replies.
const (
	askHello  kind = 1 // may begin: it is in its memory group
	askPing   kind = 2
	askLoad   kind = 3 // compile the module in the file
	askServe  kind = 4 // serve HTTP with the module in the file, log to the second
	askConn   kind = 5 // a connection to a service; has no reply
	askJob    kind = 6 // run a job; the reply is how it ended
	askStop   kind = 7
	askStats  kind = 8
	tellNews  kind = 64 // worker to peerd, about a run; has no reply
	replyOK   kind = 128
	replyFail kind = 129
)

type frame struct {
	kind    kind
	call    uint32
	payload []byte
	files   []*os.File
}

var errFrame = errors.New("malformed frame")

// parseHeader is the length of the payload and the frame without it.
func parseHeader(h [headerLen]byte) (int, frame, error) {
	n := binary.BigEndian.Uint32(h[0:4])
	if n > maxPayload {
		return 0, frame{}, fmt.Errorf("%w: a payload of %d bytes", errFrame, n)
	}
	k := kind(h[4])
	if (k < askHello || k > askStats) && k != tellNews && k != replyOK && k != replyFail {
		return 0, frame{}, fmt.Errorf("%w: kind %d", errFrame, k)
	}
	return int(n), frame{kind: k, call: binary.BigEndian.Uint32(h[5:9])}, nil
}

// appendFrame is the encoding of f without its files.
func appendFrame(b []byte, f frame) ([]byte, error) {
	if len(f.payload) > maxPayload {
		return nil, fmt.Errorf("%w: a payload of %d bytes", errFrame, len(f.payload))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(f.payload)))
	b = append(b, byte(f.kind))
	b = binary.BigEndian.AppendUint32(b, f.call)
	return append(b, f.payload...), nil
}

// link is one end of the connection between peerd and a worker. One goroutine
// reads; any may write.
type link struct {
	c *net.UnixConn

	mu sync.Mutex // one frame at a time is written
}

func (l *link) write(f frame) error {
	if len(f.files) > maxFiles {
		return fmt.Errorf("%w: %d files", errFrame, len(f.files))
	}
	b, err := appendFrame(nil, f)
	if err != nil {
		return err
	}
	var rights []byte
	if len(f.files) > 0 {
		fds := make([]int, len(f.files))
		for i, file := range f.files {
			fds[i] = int(file.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	first := b[:min(len(b), firstWrite)]
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.c.SetWriteDeadline(time.Now().Add(writeDeadline)); err != nil {
		return err
	}
	n, _, err := l.c.WriteMsgUnix(first, rights, nil)
	if err != nil {
		return err
	}
	if n == len(b) {
		return nil
	}
	_, err = l.c.Write(b[n:])
	return err
}

// read takes the next frame. The caller owns its files.
func (l *link) read() (frame, error) {
	var h [headerLen]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	var files []*os.File
	fail := func(err error) (frame, error) {
		closeAll(files)
		return frame{}, err
	}
	for have := 0; have < headerLen; {
		n, oobn, flags, _, err := l.c.ReadMsgUnix(h[have:], oob)
		if err == nil && n == 0 {
			err = io.EOF
		}
		if oobn > 0 {
			got, perr := parseRights(oob[:oobn])
			files = append(files, got...)
			if err == nil {
				err = perr
			}
		}
		if err != nil {
			return fail(err)
		}
		if flags&unix.MSG_CTRUNC != 0 {
			return fail(fmt.Errorf("%w: more files than it may carry, or than this process may open", errFrame))
		}
		have += n
	}
	n, f, err := parseHeader(h)
	if err != nil {
		return fail(err)
	}
	if n > 0 {
		f.payload = make([]byte, n)
		if _, err := io.ReadFull(l.c, f.payload); err != nil {
			return fail(err)
		}
	}
	f.files = files
	return f, nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // other control messages carry no files
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// pair makes two connected stream sockets: ours as a connection, theirs as a file
// to hand to a worker.
func pair() (*net.UnixConn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	c, err := unixConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// unixConn turns f, which it closes, into a connection.
func unixConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("not a connection: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a unix connection")
	}
	return u, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
