// Bombs does what a guest should not do, to see what becomes of it and of its peer:
//
//	GOOS=wasip1 GOARCH=wasm go build -o bombs.wasm ./examples/bombs
//	peerctl run bombs.wasm spin
package main

import (
	"fmt"
	"os"
	"time"
)

var bombs = map[string]func(){
	"spin": func() {
		//lint:ignore SA5002 to spin is what it is for
		for {
		}
	},
	"recurse": func() { fmt.Println(deep(1)) },
	"fill": func() { // the same memory again and again
		b := make([]byte, 64<<20)
		for i := byte(1); ; i++ {
			for j := range b {
				b[j] = i
			}
			clear(b)
		}
	},
	"grow": func() { // more and more of it
		var kept [][]byte
		for {
			b := make([]byte, 8<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			kept = append(kept, b)
			if len(kept) > 1<<20 {
				fmt.Println(len(kept))
			}
		}
	},
	"wait": func() { time.Sleep(24 * time.Hour) },
}

func deep(n int) int {
	if n == 0 {
		return 0
	}
	return deep(n+1) + 1
}

func main() {
	if len(os.Args) == 2 && bombs[os.Args[1]] != nil {
		bombs[os.Args[1]]()
	}
	fmt.Fprintln(os.Stderr, "usage: bombs spin|recurse|fill|grow|wait")
	os.Exit(2)
}
