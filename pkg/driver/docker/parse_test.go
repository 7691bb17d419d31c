package docker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	api "github.com/docker/docker/api/types/image"

	"peercompute/pkg/driver"
	"peercompute/pkg/mesh"
)

const someDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestParseRef(t *testing.T) {
	for in, want := range map[string]struct{ text, name string }{
		"nginx":                          {"nginx:latest", "docker.io/library/nginx:latest"},
		"nginx:1.27":                     {"nginx:1.27", "docker.io/library/nginx:1.27"},
		"127.0.0.1:5000/a/b:c":           {"127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"},
		"nginx@" + someDigest:            {"nginx@" + someDigest, "docker.io/library/nginx@" + someDigest},
		"ghcr.io/x/y:tag@" + someDigest:  {"ghcr.io/x/y@" + someDigest, "ghcr.io/x/y@" + someDigest},
		someDigest:                       {someDigest, ""},
		"docker.io/library/redis:latest": {"redis:latest", "docker.io/library/redis:latest"},
	} {
		got, err := parseRef(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		name := ""
		if got.name != nil {
			name = got.name.String()
		}
		if got.text != want.text || name != want.name {
			t.Errorf("%s: got %q, %q", in, got.text, name)
		}
	}
	// The engine's client puts the text into a URL's path.
	for _, bad := range []string{
		"", "../containers/x", "a/../../b", "a?b", "a b", "a#b", "A/B", "/etc/passwd", "x\n", "a%2f..",
		strings.Repeat("a", 64),
	} {
		if got, err := parseRef(bad); mesh.KindOf(errOr(err)) != mesh.Invalid {
			t.Errorf("%q: got %+v, %v", bad, got, err)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"nginx", "a.b:1/c@" + someDigest, "../x", someDigest} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := parseRef(s)
		if err != nil {
			return
		}
		if strings.Contains(ref.text, "..") && strings.Contains("/"+ref.text+"/", "/../") || strings.ContainsAny(ref.text, "?#% \n\r\x00\\") || ref.text == "" {
			t.Errorf("%q became %q", s, ref.text)
		}
		if again, err := parseRef(ref.text); err != nil || again.text != ref.text {
			t.Errorf("%q is not stable: %q, %v", ref.text, again.text, err)
		}
	})
}

func TestDigestsOfAnImage(t *testing.T) {
	got := api.InspectResponse{ID: someDigest, RepoDigests: []string{"nginx@sha256:" + strings.Repeat("b", 64)}}
	if !isAt(got, someDigest) || !isAt(got, "sha256:"+strings.Repeat("b", 64)) || isAt(got, "sha256:"+strings.Repeat("c", 64)) || isAt(got, "") {
		t.Error("an image is at its ID and its manifests' digests, and at no other")
	}
}

func TestUsable(t *testing.T) {
	ok := api.InspectResponse{ID: someDigest, Os: "linux", Architecture: "amd64"}
	if _, err := usable(ok, testEngine, "x"); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*api.InspectResponse){
		"windows": func(i *api.InspectResponse) { i.Os = "windows" },
		"arm64":   func(i *api.InspectResponse) { i.Architecture = "arm64" },
		"no ID":   func(i *api.InspectResponse) { i.ID = "" },
	} {
		bad := ok
		change(&bad)
		if _, err := usable(bad, testEngine, "x"); mesh.KindOf(errOr(err)) != mesh.Unsupported {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func testDriver(t *testing.T, now func() time.Time) *Driver {
	t.Helper()
	d, err := New(Config{Node: testNode, MaxImage: 1000, Now: now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestPullReport(t *testing.T) {
	at := time.Unix(0, 0)
	d := testDriver(t, func() time.Time { at = at.Add(100 * time.Millisecond); return at })
	ref := imageRef{text: "x:1"}
	line := func(id, status, current, total string) string {
		return `{"status":"` + status + `","id":"` + id + `","progressDetail":{"current":` + current + `,"total":` + total + "}}\n"
	}
	var seen []mesh.Progress
	report := `{"status":"Pulling from library/x"}` + line("a", "Downloading", "10", "100") + line("b", "Downloading", "20", "200") +
		line("a", "Downloading", "50", "100") + line("b", "Downloading", "30", "200") + line("a", "Extracting", "9", "9999999")
	if err := d.follow(strings.NewReader(report), ref, func(p mesh.Progress) { seen = append(seen, p) }); err != nil {
		t.Fatal(err)
	}
	want := []mesh.Progress{{What: "pulling x:1", Done: 10, Total: 100}, {What: "pulling x:1", Done: 80, Total: 300}}
	if len(seen) != 2 || seen[0] != want[0] || seen[1] != want[1] {
		t.Errorf("got %+v", seen)
	}
	nothing := func(mesh.Progress) {}
	if err := d.follow(strings.NewReader(line("a", "Downloading", "1", "1001")), ref, nothing); mesh.KindOf(errOr(err)) != mesh.TooLarge {
		t.Errorf("over the bound: got %v", err)
	}
	if err := d.follow(strings.NewReader(`{"error":"no such\nmanifest"}`), ref, nothing); err == nil || err.Error() != "no such manifest" {
		t.Errorf("the engine's error: got %v", err)
	}
	if err := d.follow(strings.NewReader(`{"status"`), ref, nothing); err == nil {
		t.Error("a report that breaks off passes for a whole one")
	}
}

func TestOnePullAtATime(t *testing.T) {
	var locks keyLock
	var inside, most atomic.Int32
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			unlock, err := locks.lock(t.Context(), "x")
			if err != nil {
				t.Error(err)
				return
			}
			most.Store(max(most.Load(), inside.Add(1)))
			inside.Add(-1)
			unlock()
		})
	}
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d held the lock together", most.Load())
	}
	unlock, err := locks.lock(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := locks.lock(ended, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if other, err := locks.lock(ended, "y"); err == nil { // free: either answer is right
		other()
	}
	unlock()
	if len(locks.held) != 0 {
		t.Errorf("%d locks are kept for nobody", len(locks.held))
	}
}

func frame(stream byte, text string) []byte {
	b := make([]byte, 8, 8+len(text))
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(text)))
	return append(b, text...)
}

const stamp = "2026-11-26T01:02:03.000004Z "

func TestLogEntries(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	in := bytes.Join([][]byte{frame(1, stamp+"one\n"), frame(2, stamp), frame(2, stamp+"two three\n"), frame(1, stamp+long)}, nil)
	at := time.Date(2026, 11, 26, 1, 2, 3, 4000, time.UTC)
	want := []mesh.LogEntry{{Stream: mesh.Stdout, Text: []byte("one\n")}, {Stream: mesh.Stderr}, {Stream: mesh.Stderr, Text: []byte("two three\n")}, {Stream: mesh.Stdout, Text: []byte(long)}}
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(in), "by bytes": iotest.OneByteReader(bytes.NewReader(in)), "eof with data": iotest.DataErrReader(bytes.NewReader(in))} {
		log := &entries{in: io.NopCloser(r)}
		for i, w := range want {
			e, err := log.Next()
			if err != nil || e.Stream != w.Stream || !bytes.Equal(e.Text, w.Text) || !e.Time.Equal(at) {
				t.Errorf("%s: entry %d is of %s at %s, %d bytes, %v", name, i, e.Stream, e.Time, len(e.Text), err)
			}
		}
		if _, err := log.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: its end is %v", name, err)
		}
	}
	only := &entries{in: io.NopCloser(bytes.NewReader(in)), show: driver.LogOptions{Stream: mesh.Stderr, Since: at}}
	if got, err := io.ReadAll(driver.PlainLog(only)); err != nil || string(got) != "two three\n" {
		t.Errorf("stderr alone: got %.40q, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"no frame": []byte("plain text, no frame"), "cut head": in[:5], "cut body": in[:10], "no time": frame(1, "one\n"), "not a time": frame(1, "one two\n"),
		"over the bound": {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
	} {
		if e, err := (&entries{in: io.NopCloser(bytes.NewReader(bad))}).Next(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: got %q, %v", name, e.Text, err)
		}
	}
}

func FuzzLogEntries(f *testing.F) {
	f.Add(append(frame(1, stamp+"one\n"), frame(2, stamp+"two\n")...))
	f.Add([]byte("plain"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := io.ReadAll(driver.PlainLog(&entries{in: io.NopCloser(bytes.NewReader(in))}))
		if len(got) > len(in) {
			t.Errorf("%d bytes out of %d", len(got), len(in))
		}
		if err == nil && len(in) > 0 && len(got) > len(in)-8 {
			t.Errorf("frames without heads: %d bytes out of %d", len(got), len(in))
		}
	})
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no node":      {},
		"negative":     {Node: testNode, MaxImage: -1},
		"bad engine":   {Node: testNode, Host: "nonsense"},
		"half address": {Node: testNode, Host: "unix"},
	} {
		if _, err := New(c); mesh.KindOf(errOr(err)) != mesh.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestBytesText(t *testing.T) {
	for n, want := range map[int64]string{64 << 20: "64 MiB", 1536 << 20: "1.5 GiB", 100: "100 B", 2 << 10: "2 KiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// A pushed image on an engine that goes by manifests is the one that was served to it,
// under the name and pin that say so, and no other.
func TestPushedByManifest(t *testing.T) {
	manifest, config, other := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64), "sha256:"+strings.Repeat("c", 64)
	pushed := mesh.PushedRef(testNode, config)
	d := &Driver{manifest: func(ref string) string {
		if ref == pushed {
			return manifest
		}
		return ""
	}}
	for _, c := range []struct {
		name            string
		d               *Driver
		id, ref, digest string
		want            bool
	}{
		{"the one that was served", d, manifest, pushed, config, true},
		{"another image under its name", d, other, pushed, config, false},
		{"another pin", d, manifest, pushed, other, false},
		{"a name of no pushed image", d, manifest, "nginx:1", config, false},
		{"one that is not known", d, manifest, mesh.PushedRef(testNode, other), other, false},
		{"an engine that gives it no name", d, "", mesh.PushedRef(testNode, other), other, false},
		{"nobody to ask", &Driver{}, manifest, pushed, config, false},
	} {
		if got := c.d.isPushed(api.InspectResponse{ID: c.id}, imageRef{text: c.ref}, c.digest); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}
