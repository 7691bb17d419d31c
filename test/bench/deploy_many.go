package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// together is how many are deployed together: as many as the grant allows.
const together = 50

// measureMany compares how long it takes until fifty containers are up that were asked
// for at the same moment, by fifty commands each.
func measureMany(ctx context.Context, b *bench, out *Section) error {
	image, err := b.helloImage(ctx)
	if err != nil {
		return skipped(err.Error())
	}
	t, err := b.product(ctx)
	if err != nil {
		return err
	}
	const ours, theirs = "peerctl", "docker"
	run := func(who string, i int) error {
		if who == theirs {
			_, err := output(ctx, nil, "docker", "run", "-d", "--name", manyName(i), image)
			return err
		}
		_, err := t.ctl(ctx, t.alice, "deploy", image, "--peer", "bob", "--name", fmt.Sprint("many-", i), "--port", "8080")
		return err
	}
	remove := func(ctx context.Context, who string, i int) error {
		if who == theirs {
			_, err := output(ctx, nil, "docker", "rm", "-f", manyName(i))
			return err
		}
		return t.remove(ctx, fmt.Sprint("many-", i))
	}
	var up, gone series
	rounds := b.rounds(6) + 1
	for n := range rounds {
		order := []string{theirs, ours}
		if n%2 == 1 {
			order = []string{ours, theirs}
		}
		for _, who := range order {
			began := time.Now()
			var g errgroup.Group
			for i := range together {
				g.Go(func() error { return run(who, i) })
			}
			err := g.Wait()
			took := time.Since(began)
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
			began = time.Now()
			var r errgroup.Group
			r.SetLimit(8)
			for i := range together {
				r.Go(func() error { return remove(end, who, i) })
			}
			if err = errors.Join(err, r.Wait()); err != nil {
				cancel()
				return err
			}
			cancel()
			note("    %-8s %d up after %.2f s, gone after %.2f s", who, together, took.Seconds(), time.Since(began).Seconds())
			if n > 0 { // the first of each warms up
				up.add(who, took.Seconds())
				gone.add(who, time.Since(began).Seconds())
			}
		}
	}
	out.Rows = append(out.Rows,
		up.row(fmt.Sprintf("%d at once, all up", together), "s", theirs, ours).want(ours, "≤ 1.10 of docker", func(c Cell) bool { return c.Ratio <= 1.10 }),
		gone.row("removed, 8 at a time", "s", theirs, ours))
	out.Notes = append(out.Notes, "peerctl deploy returns when the workload answers on its port; docker run -d before the program listens",
		"docker run makes a network interface for each; a workload has none, and is reached from inside its namespace")
	return nil
}

func manyName(i int) string { return fmt.Sprintf("peercompute-bench-%d-many-%d", os.Getpid(), i) }
