package main

import (
	"slices"
	"testing"
)

func TestFold(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		want []string
	}{
		{"one two three", 0, []string{"one two three"}},
		{"one two three", -5, []string{"one two three"}},
		{"one two three", 7, []string{"one two", "three"}},
		{"ä ö ü", 3, []string{"ä ö", "ü"}},
		{"overlong a b", 3, []string{"overlong", "a b"}},
		{"", 10, []string{""}},
	} {
		if got := fold(c.text, c.most); !slices.Equal(got, c.want) {
			t.Errorf("%q in %d: %q, want %q", c.text, c.most, got, c.want)
		}
	}
}
