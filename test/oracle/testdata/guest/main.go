// Command guest asks nothing of its host that could differ between hosts
// and calls back at known points, so that fuel can be compared there.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"sort"
	"strconv"
)

//go:wasmimport env look
func look()

func main() {
	look()
	var words []string
	for i := range 500 {
		words = append(words, strconv.Itoa(i*7919%1000))
	}
	sort.Strings(words)
	look()
	text, err := json.Marshal(words)
	if err != nil {
		panic(err)
	}
	look()
	var back []string
	if err := json.Unmarshal(text, &back); err != nil {
		panic(err)
	}
	look()
	sum := sha256.Sum256(text)
	done := make(chan byte)
	go func() { done <- sum[0] }()
	<-done
	look()
	defer func() {
		recover()
		look()
	}()
	panic(string(sum[:]))
}
