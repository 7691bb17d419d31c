// Writer is a small program that does to a state file what a node does, and says on
// its standard output what was acknowledged. The fault tests kill it.
//
//	writer STATE [N]
//
// It goes on where the file ends, with N changes or until it is killed. Each change
// adds an element and drops one that is Window older. Lines: "start N" once the file
// is open, "N" when change N is acknowledged, "full N" when the disk had no room for
// it; at the end "done", or "failed" when the store has given up.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"peercompute/pkg/mesh"
	"peercompute/pkg/store"
	"peercompute/test/fault/writer/change"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "writer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	count := uint64(math.MaxUint32)
	if len(args) == 2 {
		n, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil {
			return err
		}
		count = n
	}
	s, err := store.Open(args[0])
	if err != nil {
		return err
	}
	var next atomic.Uint64
	err = s.View(func(tx *store.Tx) error {
		if k, _ := tx.Last(store.Nonces); k != nil {
			next.Store(binary.BigEndian.Uint64(k) + 1)
		}
		return nil
	})
	if err != nil {
		return err
	}
	start := next.Load()
	say("start", start)
	var wg sync.WaitGroup
	for range change.Writers {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < start+count; n = next.Add(1) - 1 {
				err := s.Update(context.Background(), func(tx *store.Tx) error { return change.Make(tx, n) })
				switch {
				case err == nil:
					say("", n)
				case mesh.KindOf(err) == mesh.Overloaded:
					say("full", n)
				default:
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case <-s.Failed():
		// Never again, whatever is asked.
		if s.Update(context.Background(), func(*store.Tx) error { return nil }) == nil {
			fmt.Println("written after a failure")
		}
		fmt.Println("failed")
		return s.Err()
	default:
	}
	if err := s.Close(); err != nil {
		return err
	}
	_, err = fmt.Println("done")
	return err
}

// say writes one line in one call, so that it is there whole or not at all.
func say(what string, n uint64) {
	line := strconv.FormatUint(n, 10) + "\n"
	if what != "" {
		line = what + " " + line
	}
	if _, err := os.Stdout.WriteString(line); err != nil {
		os.Exit(1)
	}
}
