package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// guard is what keeps something out, and the test that knows. It is several edits
// where one place would make up for the other.
type guard struct {
	title string
	edits []edit
	pkg   string // of the test
	test  string // regular expression of test names
}

// edit takes one place away.
type edit struct {
	file     string
	from, to string // a part of one line, and what takes its place
}

// without is each file as it is with the guard gone.
func (g guard) without() (map[string]string, error) {
	out := map[string]string{}
	for _, e := range g.edits {
		text, ok := out[e.file]
		if !ok {
			data, err := os.ReadFile(e.file)
			if err != nil {
				return nil, err
			}
			text = string(data)
		}
		if n := strings.Count(text, e.from); n != 1 {
			return nil, fmt.Errorf("%s has %q %d times, want once", e.file, e.from, n)
		}
		out[e.file] = strings.Replace(text, e.from, e.to, 1)
	}
	return out, nil
}

// writeOverlay makes dir, and in it what the compiler reads in place of files.
func writeOverlay(dir string, files map[string]string) (overlay string, err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	var replaced struct{ Replace map[string]string }
	replaced.Replace = map[string]string{}
	for file, text := range files {
		whole, err := filepath.Abs(file)
		if err != nil {
			return "", err
		}
		copied := filepath.Join(dir, fmt.Sprint(len(replaced.Replace))+filepath.Base(file))
		if err := os.WriteFile(copied, []byte(text), 0o644); err != nil {
			return "", err
		}
		replaced.Replace[whole] = copied
	}
	data, err := json.Marshal(replaced)
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, data, 0o644)
}
