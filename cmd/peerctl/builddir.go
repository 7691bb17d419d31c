package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"peercompute/pkg/control"
)

// isBuildDir decides whether the word given to deploy is a directory to build. Only
// what looks like a path is: a directory may be called like an image.
func isBuildDir(target string) (bool, error) {
	if !strings.HasPrefix(target, ".") && !filepath.IsAbs(target) && !strings.HasSuffix(target, string(filepath.Separator)) {
		return false, nil
	}
	st, err := os.Stat(target)
	if err != nil || !st.IsDir() {
		return false, nil // as a module it is told what is wrong
	}
	if st, err := os.Stat(filepath.Join(target, control.Dockerfile)); err != nil || !st.Mode().IsRegular() {
		return false, usagef("%s has no %s", target, control.Dockerfile).hint("deploy takes a directory to build, an image such as nginx:1.27, or a .wasm file")
	}
	return true, nil
}

// buildDir builds a directory on this machine and returns the image's ID.
func (a *app) buildDir(ctx context.Context, c *control.Client, b control.Build) (string, error) {
	img, err := c.BuildDir(ctx, b, func(ev control.ImageEvent) {
		if ev.Log == "" || a.json() {
			return
		}
		for line := range strings.Lines(ev.Log) {
			a.note("%s", strings.TrimRight(line, "\n"))
		}
	})
	return img.ID, err
}
