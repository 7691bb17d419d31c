package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// measureDeploy compares how long it takes until a container answers for the first
// time: deployed on another peer and asked for through the gateway, or run by hand
// with a published port. The image is on the engine already in both cases.
func measureDeploy(ctx context.Context, b *bench, out *Section) error {
	image, err := b.helloImage(ctx)
	if err != nil {
		return skipped(err.Error())
	}
	t, err := b.product(ctx)
	if err != nil {
		return err
	}
	port, err := b.port()
	if err != nil {
		return err
	}
	const ours, theirs = "peerctl", "docker"
	var whole, alone series
	one := func(who string, n int) error {
		var first, command time.Duration
		var err error
		if who == ours {
			command, first, err = deployOnce(ctx, t, image, n)
		} else {
			command, first, err = dockerOnce(ctx, image, port, n)
		}
		if err != nil {
			return err
		}
		note("    %-8s command %6.1f ms, first 200 after %6.1f ms", who, milliseconds(command), milliseconds(first))
		if n == 0 {
			return nil // the first of each warms up
		}
		whole.add(who, milliseconds(first))
		alone.add(who, milliseconds(command))
		return nil
	}
	for n := range b.rounds(20) + 1 {
		order := []string{theirs, ours}
		if n%2 == 1 {
			order = []string{ours, theirs}
		}
		for _, who := range order {
			if err := one(who, n); err != nil {
				return err
			}
		}
	}
	out.Rows = append(out.Rows,
		whole.row("to the first 200", "ms", theirs, ours).want(ours, "≤ 1.05 of docker", func(c Cell) bool { return c.Ratio <= 1.05 }),
		alone.row("the command alone", "ms", theirs, ours))
	out.Notes = append(out.Notes, "peerctl deploy returns when the workload answers and has its public name; docker run returns before the program listens",
		"docker run makes a network interface and publishes a port; a workload has no network, and is reached from inside its namespace")
	return nil
}

func deployOnce(ctx context.Context, t *trio, image string, n int) (command, first time.Duration, err error) {
	name := fmt.Sprintf("bench-%d", n)
	began := time.Now()
	at, err := t.deploy(ctx, image, name, "--port", "8080")
	if err != nil {
		return 0, 0, err
	}
	command = time.Since(began)
	if _, err := firstAnswer(ctx, at, "/"); err != nil {
		return 0, 0, err
	}
	first = time.Since(began)
	return command, first, t.remove(ctx, name)
}

func dockerOnce(ctx context.Context, image, port string, n int) (command, first time.Duration, err error) {
	name := fmt.Sprintf("peercompute-bench-%d-%d", os.Getpid(), n)
	// Even if the bench is being stopped, and even if run only half worked.
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		if _, gone := output(end, nil, "docker", "rm", "-f", name); gone != nil && err == nil {
			err = gone
		}
	}()
	began := time.Now()
	out, err := output(ctx, nil, "docker", "run", "-d", "--name", name, "-p", "127.0.0.1:"+port+":8080", image)
	if err != nil {
		return 0, 0, err
	}
	command = time.Since(began)
	if len(strings.TrimSpace(out)) != 64 {
		return 0, 0, fmt.Errorf("docker run printed %q instead of an ID", out)
	}
	if _, err := firstAnswer(ctx, target{"127.0.0.1:" + port, "hello.localhost"}, "/"); err != nil {
		return 0, 0, err
	}
	return command, time.Since(began), nil
}
