// Command guest is a program that uses much of the Go runtime: it is built for
// wasip1 by the tests, which meter it.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

type item struct {
	Name  string            `json:"name"`
	Value float64           `json:"value"`
	Tags  []string          `json:"tags"`
	Attr  map[string]string `json:"attr"`
}

type shape interface{ area() float64 }

type square struct{ a float64 }
type circle struct{ r float64 }

func (s square) area() float64 { return s.a * s.a }
func (c circle) area() float64 { return 3 * c.r * c.r }

func main() {
	rounds := 1
	if len(os.Args) > 1 {
		rounds, _ = strconv.Atoi(os.Args[1])
	}
	for round := range rounds {
		work(round, round == rounds-1)
	}
}

func work(round int, show bool) {
	var out io.Writer = io.Discard
	if show {
		out = os.Stdout
	}
	items := make([]item, 200)
	for i := range items {
		items[i] = item{
			Name: "item" + strconv.Itoa(i*7919%1000), Value: float64(i) / 3,
			Tags: []string{"a", "b", strconv.Itoa(i)}, Attr: map[string]string{"k": strconv.Itoa(round)},
		}
	}
	sort.Slice(items, func(a, b int) bool { return items[a].Name < items[b].Name })
	text, err := json.Marshal(items)
	if err != nil {
		panic(err)
	}
	var back []item
	if err := json.Unmarshal(text, &back); err != nil {
		panic(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(text)
	z.Close()
	u, err := gzip.NewReader(&packed)
	if err != nil {
		panic(err)
	}
	plain, err := io.ReadAll(u)
	if err != nil {
		panic(err)
	}
	found := regexp.MustCompile(`"name":"(item\d*7)"`).FindAllSubmatch(plain, -1)
	sum := sha256.Sum256(bytes.Repeat(plain, 4))
	shapes := []shape{}
	for i := range 1000 {
		if i%3 == 0 {
			shapes = append(shapes, circle{float64(i)})
		} else {
			shapes = append(shapes, square{float64(i)})
		}
	}
	total := 0.0
	for _, s := range shapes {
		total += s.area()
	}
	done := make(chan int)
	go func() {
		n := 0
		for _, word := range strings.Fields(strings.Repeat("the quick brown fox ", 100)) {
			n += len(word)
		}
		done <- n
	}()
	defer func() { fmt.Fprintln(out, recover()) }()
	fmt.Fprintf(out, "%d %d %x %.1f %d\n", len(back), len(found), sum[:8], total, <-done)
	var none []int
	_ = none[round]
}
