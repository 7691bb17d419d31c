package mesh

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseHealth(t *testing.T) {
	for in, want := range map[string]Health{
		"http:/":               {Check: CheckHTTP, Path: "/"},
		"http:/up?x=1@8080":    {Check: CheckHTTP, Path: "/up?x=1", Port: 8080},
		"http:/@me":            {Check: CheckHTTP, Path: "/@me"},
		"tcp":                  {Check: CheckTCP},
		"tcp:5432":             {Check: CheckTCP, Port: 5432},
		`cmd:/bin/pg -q "a b"`: {Check: CheckCommand, Command: []string{"/bin/pg", "-q", "a b"}},
		`cmd:sh -c 'exit "1"'`: {Check: CheckCommand, Command: []string{"sh", "-c", `exit "1"`}},
		`cmd:a \ b ""`:         {Check: CheckCommand, Command: []string{"a", " b", ""}},
	} {
		if got, err := ParseHealth(in); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "http", "http:", "http:up", "http:/a b", "http:/\r\nX: y", "http:/@0", "http:/@70000", "tcp:", "tcp:x", "tcp:0",
		"cmd", "cmd:", "cmd:'a", `cmd:a\`, "cmd:\x00", "exec:a", "https:/", "http:/" + strings.Repeat("a", 2000), "cmd:" + strings.Repeat("a ", 100),
	} {
		if got, err := ParseHealth(in); KindOf(err) != Invalid {
			t.Errorf("%q: got %+v, %v; want a refusal", in, got, err)
		}
	}
}

func TestHealthSpec(t *testing.T) {
	container := Spec{Name: "a", Runtime: Container, Image: "x", Port: 80}
	guest := Spec{Name: "a", Runtime: Wasm, Shape: HTTP, Digest: "sha256:" + strings.Repeat("0", 64)}
	for _, tc := range []struct {
		name   string
		spec   Spec
		health Health
		want   string // part of the problem; "" = none
	}{
		{"http", container, Health{Check: CheckHTTP, Path: "/"}, ""},
		{"http of a guest", guest, Health{Check: CheckHTTP, Path: "/"}, ""},
		{"a command", container, Health{Check: CheckCommand, Command: []string{"a"}}, ""},
		{"nothing", container, Health{}, "not http, tcp or cmd"},
		{"a split path", container, Health{Check: CheckHTTP, Path: "/ HTTP/1.1\r\nHost: x"}, "path"},
		{"two checks", container, Health{Check: CheckTCP, Path: "/"}, "mixes"},
		{"a guest's command", guest, Health{Check: CheckCommand, Command: []string{"a"}}, "no programs"},
		{"a guest's port", guest, Health{Check: CheckTCP, Port: 1}, "one port"},
		{"a job", Spec{Name: "a", Runtime: Wasm, Shape: Job, Digest: guest.Digest}, Health{Check: CheckTCP}, "a job"},
		{"no port", Spec{Name: "a", Runtime: Container, Image: "x"}, Health{Check: CheckTCP}, "needs the port"},
		{"often", container, Health{Check: CheckTCP, Interval: time.Millisecond}, "interval"},
		{"seldom", container, Health{Check: CheckTCP, Interval: 2 * time.Hour}, "interval"},
		{"backwards", container, Health{Check: CheckTCP, Interval: -time.Second}, "interval"},
		{"long", container, Health{Check: CheckTCP, Timeout: time.Hour}, "timeout"},
		{"patient", container, Health{Check: CheckTCP, Retries: 1000}, "retries"},
		{"negative", container, Health{Check: CheckTCP, Retries: -1}, "retries"},
		{"long words", container, Health{Check: CheckCommand, Command: []string{strings.Repeat("a", 5000)}}, "words"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := tc.spec
			s.Health = &tc.health
			before := tc.health
			err := s.WithDefaults().Validate()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if !reflect.DeepEqual(tc.health, before) {
				t.Error("defaults were written into the caller's value")
			}
		})
	}
}

func FuzzParseHealth(f *testing.F) {
	for _, s := range []string{"http:/a@80", "tcp:1", `cmd:a 'b c' "d" \e`, "http:/@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseHealth(s)
		if err != nil {
			return
		}
		spec := Spec{Name: "a", Runtime: Container, Image: "x", Port: 80, Health: &h}
		if err := spec.WithDefaults().Validate(); err != nil {
			t.Errorf("%q is read as %+v, which is refused: %v", s, h, err)
		}
		if again, err := ParseHealth(h.String()); h.Check != CheckCommand && (err != nil || !reflect.DeepEqual(again, h)) {
			t.Errorf("%q: %+v, then %+v, %v", s, h, again, err)
		}
	})
}
