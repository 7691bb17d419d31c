package main

import (
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     counts
	}{
		{"empty", "", counts{}},
		{"no newline at the end", "one two", counts{lines: 0, words: 2, bytes: 7}},
		{"runs of space", "  one \t\n\n two  \n", counts{lines: 3, words: 2, bytes: 16}},
		{"not ASCII", "ärger 世界\n", counts{lines: 1, words: 2, bytes: 14}},
		{"not UTF-8", "\xff\xfe a\n", counts{lines: 1, words: 2, bytes: 5}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := count(strings.NewReader(tc.in))
			if err != nil || got != tc.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}
