package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// Machine is what the figures depend on.
type Machine struct {
	Cores  int     `json:"cores"`
	CPU    string  `json:"cpu"`
	Kernel string  `json:"kernel"`
	Go     string  `json:"go"`
	TCP    string  `json:"tcp"`    // congestion control
	Files  string  `json:"files"`  // file system under the temporary directory
	Load   float64 `json:"load"`   // load average of the last minute, at the start; -1 = not known
	Engine string  `json:"engine"` // version of the Docker engine; empty = none answers
}

func describeMachine(dir string) Machine {
	return Machine{
		Cores:  runtime.NumCPU(),
		CPU:    processor(),
		Kernel: command("uname", "-sr"),
		TCP:    firstLine("/proc/sys/net/ipv4/tcp_congestion_control"),
		Go:     runtime.Version(),
		Files:  command("stat", "-f", "-c", "%T", dir),
		Load:   loadAverage(),
		Engine: command("docker", "version", "--format", "{{.Server.Version}}"),
	}
}

// command is a program's one line of output; empty if it does not run.
func command(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// firstLine of a file; empty if there is none.
func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

func loadAverage() float64 {
	first, _, _ := strings.Cut(firstLine("/proc/loadavg"), " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return v
}

func (m Machine) warnings(quick bool) []string {
	var out []string
	if m.Load > 1 {
		out = append(out, fmt.Sprintf("the machine was busy (load %.2f): absolute figures are too low, ratios are noisy", m.Load))
	}
	if m.Files == "tmpfs" {
		out = append(out, "temporary files are in memory: set TMPDIR to a disk, or what is called durable is not")
	}
	if quick {
		out = append(out, "-quick: too few samples to quote")
	}
	return out
}
