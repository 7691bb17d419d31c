package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// helloImage is the example's program alone in an image, made once.
func (b *bench) helloImage(ctx context.Context) (string, error) {
	if b.image != "" {
		return b.image, nil
	}
	if _, err := exec.LookPath("docker"); err != nil {
		return "", errors.New("there is no docker command")
	}
	ask, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := output(ask, nil, "docker", "version"); err != nil {
		return "", errors.New("no Docker engine answers")
	}
	program, err := b.compile(ctx, "hello-container", "hello-linux", "GOOS=linux")
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o755, Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return "", err
	}
	name := fmt.Sprintf("peercompute-bench/hello:%d", os.Getpid())
	if _, err := output(ctx, &layer, "docker", "import", "--change", `ENTRYPOINT ["/hello"]`, "--change", "EXPOSE 8080", "-", name); err != nil {
		return "", err
	}
	b.image = name
	return name, nil
}
