package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWhatIsADirectoryToBuild(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := errors.Join(os.Mkdir("redis", 0o700), os.WriteFile("redis/Dockerfile", nil, 0o600), os.Mkdir("empty", 0o700)); err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]bool{"redis": false, "./redis": true, "redis/": true, filepath.Join(dir, "redis"): true, "nginx:1.27": false, "./nothing": false} {
		if got, err := isBuildDir(target); got != want || err != nil {
			t.Errorf("%s: %t %v", target, got, err)
		}
	}
	if _, err := isBuildDir("./empty"); err == nil {
		t.Error("a directory without a Dockerfile is taken")
	}
	if got := dirName("."); got == "app" || got == "" {
		t.Errorf("the directory is called %q", got)
	}
}
