package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"peercompute/pkg/mesh"
)

// environment joins the files and the single entries of a command line. What
// comes later wins, and entries win over files. An entry without "=" takes its
// value from peerctl's own environment.
func (a *app) environment(files, entries []string) ([]string, error) {
	var all []string
	for _, path := range files {
		env, err := readEnvFile(path)
		if err != nil {
			return nil, err
		}
		all = append(all, env...)
	}
	for _, e := range entries {
		key, _, given := strings.Cut(e, "=")
		if !given {
			v, set := a.env(key)
			if !set {
				return nil, usagef("--env %s: no variable %s is set here", e, key).
					hint("give its value: --env %s=VALUE", key)
			}
			e = key + "=" + v
		}
		if err := checkKey(key); err != nil {
			return nil, usagef("--env %s: %s", e, err)
		}
		all = append(all, e)
	}
	return lastWins(all), nil
}

// lastWins keeps one entry for each variable, in the order of their first mention.
func lastWins(env []string) []string {
	var out []string
	place := map[string]int{}
	for _, e := range env {
		key, _, _ := strings.Cut(e, "=")
		if i, seen := place[key]; seen {
			out[i] = e
			continue
		}
		place[key] = len(out)
		out = append(out, e)
	}
	return out
}

func readEnvFile(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("cannot read the environment file %s: %s", path, root(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, mesh.MaxStrings+1))
	if err != nil {
		return nil, usagef("cannot read the environment file %s: %s", path, root(err))
	}
	if len(text) > mesh.MaxStrings {
		return nil, usagef("the environment file %s is over %s", path, formatSize(mesh.MaxStrings))
	}
	env, err := parseEnvFile(string(text))
	if err != nil {
		return nil, usagef("%s: %s", path, err).
			hint("each line is KEY=VALUE, empty, or a comment that begins with #; quotes are kept")
	}
	return env, nil
}

// parseEnvFile reads lines of KEY=VALUE. Values are taken as they stand, quotes
// and trailing blanks too; empty lines and lines that begin with # are skipped.
func parseEnvFile(text string) ([]string, error) {
	var env []string
	text = strings.TrimPrefix(text, "\ufeff") // what some editors put first
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		line = strings.TrimLeft(strings.TrimRight(line, "\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, _, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d is not KEY=VALUE", number)
		}
		if err := checkKey(key); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if strings.ContainsRune(line, 0) {
			return nil, fmt.Errorf("line %d contains a NUL byte", number)
		}
		env = append(env, line)
	}
	return env, nil
}

func checkKey(key string) error {
	if key == "" {
		return fmt.Errorf("the name of the variable is missing")
	}
	if strings.ContainsFunc(key, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return fmt.Errorf("%q is not the name of a variable", key)
	}
	return nil
}
