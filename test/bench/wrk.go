package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// wrk runs wrk with one thread.
func wrk(ctx context.Context, t target, path string, conns int, d time.Duration) (sample, error) {
	// wrk counts in whole seconds.
	seconds := max(1, int(d.Round(time.Second)/time.Second))
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+requestLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "wrk", "-t1", fmt.Sprintf("-c%d", conns), fmt.Sprintf("-d%ds", seconds), "--latency", "--timeout", "10s",
		"-H", "Host: "+t.host, "http://"+t.addr+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return parseWrk(string(out))
}

var (
	wrkTotal  = regexp.MustCompile(`(\d+) requests in ([\d.]+(?:us|ms|s|m|h)), ([\d.]+)([KMGT]?B) read`)
	wrkHalf   = regexp.MustCompile(`(?m)^\s+50%\s+([\d.]+(?:us|ms|s|m))`)
	wrkMost   = regexp.MustCompile(`(?m)^\s+99%\s+([\d.]+(?:us|ms|s|m))`)
	wrkErrors = regexp.MustCompile(`(?m)^\s*(Socket errors: .*|Non-2xx or 3xx responses: \d+)`)
	wrkUnits  = map[string]float64{"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
)

// parseWrk reads what wrk prints. Answers that failed make the run void.
func parseWrk(out string) (sample, error) {
	if bad := wrkErrors.FindString(out); bad != "" {
		return sample{}, fmt.Errorf("wrk met failures: %s", bad)
	}
	total := wrkTotal.FindStringSubmatch(out)
	half, most := wrkHalf.FindStringSubmatch(out), wrkMost.FindStringSubmatch(out)
	if total == nil || half == nil || most == nil {
		return sample{}, fmt.Errorf("wrk prints what is not understood:\n%s", out)
	}
	var s sample
	var size float64
	var errs [5]error
	s.requests, errs[0] = strconv.Atoi(total[1])
	s.elapsed, errs[1] = time.ParseDuration(total[2])
	size, errs[2] = strconv.ParseFloat(total[3], 64)
	s.p50, errs[3] = time.ParseDuration(half[1])
	s.p99, errs[4] = time.ParseDuration(most[1])
	s.bytes = int64(size * wrkUnits[total[4]])
	if err := errors.Join(errs[:]...); err != nil {
		return s, err
	}
	if s.elapsed <= 0 {
		return s, errors.New("wrk took no time")
	}
	return s, nil // without a whole answer too: so slow it was
}
