package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"peercompute/pkg/heartbeat"
	"peercompute/pkg/lend"
	"peercompute/pkg/mesh"
	"peercompute/pkg/peernet"
)

// config is peerd.toml. configs/peerd.toml explains each setting.
type config struct {
	Listen    []string     `toml:"listen"`
	LogLevel  string       `toml:"log_level"`
	Heartbeat string       `toml:"heartbeat"`
	Meet      meetConfig   `toml:"meet"`
	Lend      lendConfig   `toml:"lend"`
	Docker    dockerConfig `toml:"docker"`
}

type lendConfig struct {
	Workloads int     `toml:"workloads"`
	CPUs      float64 `toml:"cpus"`
	MemoryMiB int64   `toml:"memory_mib"`
	DiskMiB   int64   `toml:"disk_mib"`
	Reserve   int64   `toml:"reserve_memory_mib"`
	When      string  `toml:"when"`
	Then      string  `toml:"then"`
}

type dockerConfig struct {
	Enabled bool   `toml:"enabled"`
	Host    string `toml:"host"`
	Runtime string `toml:"runtime"`
}

func defaultConfig() config {
	return config{
		Listen:    []string{"/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"},
		LogLevel:  "info",
		Heartbeat: heartbeat.DefaultInterval.String(),
		// Limits are caps, not reservations, so processor time is lent several times over.
		Lend:   lendConfig{Workloads: 100, CPUs: float64(4 * runtime.NumCPU()), MemoryMiB: memoryMiB() * 3 / 4, DiskMiB: 16 << 10, When: lend.Always, Then: string(lend.Keep)},
		Docker: dockerConfig{Enabled: true},
	}
}

const (
	fileName      = "peerd.toml"
	maxConfigFile = 1 << 20
)

// loadConfig reads the configuration file over the defaults. Without a name, a
// file that is not there means the defaults.
func loadConfig(home, file string) (config, error) {
	cfg := defaultConfig()
	named := file != ""
	if !named {
		file = filepath.Join(home, fileName)
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return cfg, nil
	}
	if err != nil {
		return cfg, mesh.Errorf(mesh.Invalid, "cannot read the configuration").WithHint("check the path given with --config").Because(err)
	}
	return parseConfig(cfg, file, data)
}

func parseConfig(cfg config, file string, data []byte) (config, error) {
	if len(data) > maxConfigFile {
		return cfg, mesh.Errorf(mesh.TooLarge, "the configuration %s is over 1 MiB", file)
	}
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cfg); err != nil {
		var unknown *toml.StrictMissingError
		var syntax *toml.DecodeError
		var problems []string
		switch {
		case errors.As(err, &unknown):
			for _, e := range unknown.Errors {
				row, _ := e.Position()
				problems = append(problems, fmt.Sprintf("line %d: there is no setting %q", row, strings.Join(e.Key(), ".")))
			}
		case errors.As(err, &syntax):
			row, col := syntax.Position()
			problems = append(problems, fmt.Sprintf("line %d, column %d: %s", row, col, strings.TrimPrefix(syntax.Error(), "toml: ")))
		default:
			problems = append(problems, err.Error())
		}
		return cfg, mesh.Errorf(mesh.Invalid, "%s: %s", file, strings.Join(problems, "; ")).
			WithHint("configs/peerd.toml lists and explains every setting")
	}
	return cfg, nil
}

// validate lists every problem at once.
func (c config) validate() error {
	var bad []string
	for _, a := range c.Listen {
		if _, _, err := peernet.ParseAddr(a); err != nil {
			bad = append(bad, fmt.Sprintf("listen: %q is not a multiaddr", a))
		}
	}
	if _, ok := levels[c.LogLevel]; !ok {
		bad = append(bad, fmt.Sprintf("log_level: %q is not debug, info, warn or error", c.LogLevel))
	}
	if _, err := heartbeat.ParseInterval(c.Heartbeat); err != nil {
		bad = append(bad, "heartbeat: "+err.Error())
	}
	bad = append(bad, c.Meet.problems()...)
	if _, err := c.lend().Policy(); err != nil {
		bad = append(bad, "lend: "+err.Error())
	}
	if h := c.Docker.Host; h != "" && !strings.HasPrefix(h, "unix://") {
		bad = append(bad, fmt.Sprintf("docker.host: %q is not a local socket (unix://PATH)", h))
	}
	if len(bad) > 0 {
		return mesh.Errorf(mesh.Invalid, "the configuration is wrong: %s", strings.Join(bad, "; ")).
			WithHint("configs/peerd.toml lists and explains every setting")
	}
	return nil
}

var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

func (c config) level() slog.Level { return levels[c.LogLevel] }

// lend is what the file says to begin with; what was set with peerctl lend goes
// before it.
func (c config) lend() lend.Settings {
	l := c.Lend
	cpus, memory, disk, reserve := int64(l.CPUs*1000), l.MemoryMiB<<20, l.DiskMiB<<20, l.Reserve<<20
	return lend.Settings{
		Workloads: &l.Workloads, MilliCPU: &cpus, Memory: &memory, Disk: &disk, Reserve: &reserve, When: &l.When, Then: &l.Then,
	}
}
