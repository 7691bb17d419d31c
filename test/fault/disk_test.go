package fault

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// disk is what a disk is told by one process, call by call: what is on it for sure,
// and what a power loss may still take away. Sectors are written whole or not.
type disk struct {
	now     map[string]*inode // names as the process sees them
	durable map[string]*inode // names that survive
	renames []map[string]*inode
}

type inode struct {
	durable []byte
	pending []writing
}

// writing is bytes at an offset; or, without bytes, a new size.
type writing struct {
	at   int64
	data []byte
}

const sector = 512

func newDisk() *disk { return &disk{now: map[string]*inode{}, durable: map[string]*inode{}} }

// call applies one call. Whatever it does not know has no effect on the disk.
func (d *disk) call(c call) {
	switch c.name {
	case "openat":
		if strings.Contains(c.rest, "O_CREAT") && d.now[c.paths[0]] == nil {
			d.rename(func(names map[string]*inode) { names[c.paths[0]] = &inode{} })
		}
	case "renameat":
		d.rename(func(names map[string]*inode) {
			names[c.paths[1]] = names[c.paths[0]]
			delete(names, c.paths[0])
		})
	case "unlinkat":
		d.rename(func(names map[string]*inode) { delete(names, c.paths[0]) })
	case "pwrite64", "write":
		if f := d.now[c.file]; f != nil {
			f.pending = append(f.pending, writing{c.at, c.data})
		}
	case "ftruncate":
		if f := d.now[c.file]; f != nil {
			f.pending = append(f.pending, writing{at: c.at})
		}
	case "fsync", "fdatasync":
		if f := d.now[c.file]; f != nil {
			for _, w := range f.pending {
				f.durable = w.apply(f.durable)
			}
			f.pending = nil
		} else { // a directory: its names are safe
			d.durable, d.renames = maps.Clone(d.now), nil
		}
	}
}

func (d *disk) rename(change func(map[string]*inode)) {
	change(d.now)
	d.renames = append(d.renames, maps.Clone(d.now))
}

func (w writing) apply(b []byte) []byte {
	end := int(w.at) + len(w.data)
	if w.data == nil && end < len(b) {
		return b[:end]
	}
	if end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[w.at:], w.data)
	return b
}

// loss is how much of what is not safe a power loss takes.
type loss int

const (
	nothing    loss = iota // as after kill -9
	everything             // that no fsync had covered
	some                   // at random: calls, sectors, the latest names
)

// after writes to dir what is left when it happens now.
func (d *disk) after(t *testing.T, dir string, l loss) {
	t.Helper()
	names := d.durable
	switch {
	case l == nothing:
		names = d.now
	case l == some && len(d.renames) > 0: // a journal keeps their order
		if n := rand.IntN(len(d.renames) + 1); n > 0 {
			names = d.renames[n-1]
		}
	}
	for name, f := range names {
		b := bytes.Clone(f.durable)
		for _, w := range f.pending {
			switch {
			case l == nothing:
				b = w.apply(b)
			case l == some && rand.IntN(3) == 0:
				b = w.apply(b)
			case l == some && rand.IntN(2) == 0:
				b = w.tear(b)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// tear applies some sectors of a writing.
func (w writing) tear(b []byte) []byte {
	for at := 0; at < len(w.data); {
		end := min(len(w.data), at+sector-int(w.at+int64(at))%sector)
		if rand.IntN(2) == 0 {
			b = writing{w.at + int64(at), w.data[at:end]}.apply(b)
		}
		at = end
	}
	return b
}

// call is one system call of a trace.
type call struct {
	name  string
	file  string   // that its descriptor stands for
	paths []string // that it names
	data  []byte
	at    int64
	rest  string // as it was traced
}

var (
	tracedCall = regexp.MustCompile(`^\d+ +(\w+)\((.*)$`)
	resumed    = regexp.MustCompile(`^\d+ +<\.\.\. (\w+) resumed>`)
	descriptor = regexp.MustCompile(`^(\d+)<([^>]*)>`)
	quoted     = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
)

// readTrace reads what `strace -f -y -xx` wrote. A write counts from when it began; an
// fsync from when it had ended.
func readTrace(t *testing.T, file string) (calls []call) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	began := map[string]call{} // fsyncs under way, by thread
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		line := lines.Text()
		thread, _, _ := strings.Cut(line, " ")
		if resumed.MatchString(line) {
			if c, ok := began[thread]; ok {
				delete(began, thread)
				calls = append(calls, c)
			}
			continue
		}
		m := tracedCall.FindStringSubmatch(line)
		if m == nil || strings.Contains(line, "= -1 ") {
			continue
		}
		c := call{name: m[1], rest: m[2]}
		if fd := descriptor.FindStringSubmatch(c.rest); fd != nil {
			c.file = unhex(t, fd[2])
			if fd[1] == "1" && c.name == "write" {
				c.file = "stdout"
			}
		}
		texts := quoted.FindAllStringSubmatch(c.rest, -1)
		switch c.name {
		case "pwrite64", "write":
			c.data = []byte(unhex(t, texts[0][1]))
			_, after, _ := strings.Cut(c.rest, `", `)
			fields := strings.FieldsFunc(after, func(r rune) bool { return r == ',' || r == ' ' || r == ')' })
			if n, err := strconv.Atoi(fields[0]); err != nil || n != len(c.data) {
				t.Fatalf("a write was not traced whole: %.200s", line)
			}
			if c.name == "pwrite64" {
				if c.at, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
					t.Fatal(err)
				}
			}
		case "ftruncate":
			_, after, _ := strings.Cut(c.rest, ">, ")
			if c.at, err = strconv.ParseInt(strings.TrimRight(strings.Fields(after)[0], ")"), 10, 64); err != nil {
				t.Fatal(err)
			}
		case "fsync", "fdatasync":
			if strings.Contains(line, "<unfinished") {
				began[thread] = c
				continue
			}
		default:
			for _, q := range texts {
				c.paths = append(c.paths, unhex(t, q[1]))
			}
		}
		calls = append(calls, c)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return calls
}

func unhex(t *testing.T, s string) string {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
