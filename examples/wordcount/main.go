// Wordcount is a job for Peer Compute: it reads its standard input to the end and
// prints how many lines, words and bytes it had.
//
//	GOOS=wasip1 GOARCH=wasm go build -o wordcount.wasm ./examples/wordcount
//	peerctl run wordcount.wasm < README.md
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"unicode"
)

func main() {
	exit := flag.Int("exit", 0, "end with this exit status")
	spin := flag.Bool("spin", false, "never end, to see a limit at work")
	flag.Parse()
	for n := 0; *spin; n++ {
	}
	c, err := count(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "wordcount:", err)
		os.Exit(1)
	}
	fmt.Printf("%d lines, %d words, %d bytes\n", c.lines, c.words, c.bytes)
	os.Exit(*exit)
}

type counts struct{ lines, words, bytes int64 }

// count reads r to its end in bounded memory.
func count(r io.Reader) (counts, error) {
	var c counts
	inWord := false
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		char, size, err := in.ReadRune()
		if err == io.EOF {
			return c, nil
		}
		if err != nil {
			return c, err
		}
		c.bytes += int64(size)
		if char == '\n' {
			c.lines++
		}
		if unicode.IsSpace(char) {
			inWord = false
		} else if !inWord {
			inWord = true
			c.words++
		}
	}
}
