package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"peercompute/pkg/mesh"
)

// The example file shows every setting, and all of it is valid.
func TestExampleConfig(t *testing.T) {
	data, err := os.ReadFile("../../configs/peerd.toml")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := parseConfig(defaultConfig(), "peerd.toml", data)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	var missing []string
	var walk func(reflect.Type)
	walk = func(ty reflect.Type) {
		for f := range ty.Fields() {
			if f.Type.Kind() == reflect.Struct {
				walk(f.Type)
			} else if name := f.Tag.Get("toml"); !strings.Contains(string(data), name) {
				missing = append(missing, name)
			}
		}
	}
	walk(reflect.TypeFor[config]())
	if len(missing) > 0 {
		t.Fatalf("configs/peerd.toml does not show: %v", missing)
	}
}

func TestConfigListsEveryProblem(t *testing.T) {
	cfg, err := parseConfig(defaultConfig(), "x.toml", []byte("listen = [\"nonsense\"]\nlog_level = \"loud\"\n[lend]\ncpus = -1\n[docker]\nhost = \"tcp://elsewhere\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = cfg.validate()
	for _, want := range []string{"nonsense", "loud", "lend", "docker.host"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not mention %s", err, want)
		}
	}
}

func TestConfigRefusesUnknownSettings(t *testing.T) {
	_, err := parseConfig(defaultConfig(), "x.toml", []byte("lisen = []\n[lend]\nmem = 3\n"))
	if mesh.KindOf(err) != mesh.Invalid || !strings.Contains(err.Error(), "lisen") || !strings.Contains(err.Error(), "lend.mem") {
		t.Fatalf("got %v, want both unknown settings named", err)
	}
}

func TestLoadConfig(t *testing.T) {
	home := t.TempDir()
	if cfg, err := loadConfig(home, ""); err != nil || len(cfg.Listen) == 0 {
		t.Fatalf("without a file: %v, %v; want the defaults", cfg, err)
	}
	if _, err := loadConfig(home, filepath.Join(home, "absent.toml")); mesh.KindOf(err) != mesh.Invalid {
		t.Fatalf("a named file that is absent: %v, want Invalid", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("listen = []\n"))
	f.Add([]byte("[lend]\ncpus = 1e9\n"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		if cfg, err := parseConfig(defaultConfig(), "x", data); err == nil {
			_ = cfg.validate()
		}
	})
}
