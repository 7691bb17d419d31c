package main

import "testing"

func TestReported(t *testing.T) {
	text := "goos: linux\nBenchmarkRevocation-2   \t       3\t  6552698 ns/op\t        43.5 ms/revocation\nBenchmarkRevocation-2   \t       3\t  6552698 ns/op\t        45.5 ms/revocation\nPASS\n"
	got, err := reported(text, "Revocation")
	if err != nil || len(got["ms/revocation"].samples[measured]) != 2 || got["ms/revocation"].row("x", "ms").Cells[0].Median != 44.5 {
		t.Errorf("got %v, %v; want 43.5 and 45.5 ms", got, err)
	}
	for _, bad := range []string{"", "PASS\n", "BenchmarkOther-2 1 5 ms/revocation\n", "BenchmarkRevocation-2 1 x ms/revocation\n"} {
		if _, err := reported(bad, "Revocation"); err == nil {
			t.Errorf("nothing is wrong with %q", bad)
		}
	}
}
