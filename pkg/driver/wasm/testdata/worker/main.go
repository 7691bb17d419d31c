// Worker is a worker process without the race detector, for tests that compile
// large modules: the detector makes the compiler ten times slower.
package main

import (
	"context"
	"fmt"
	"os"

	"peercompute/pkg/driver/wasm"
)

func main() {
	if err := wasm.WorkerMain(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
