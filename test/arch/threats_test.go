package arch

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Every file and every test that the threat model names exists: a claim without
// its proof does not stay.
func TestThreatModelPointsAtWhatExists(t *testing.T) {
	text, err := os.ReadFile("../../THREAT_MODEL.md")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("grep", "-rhoE", `^func (Test|Fuzz)[A-Za-z0-9_]+`, "--include=*_test.go", "../..").Output()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		tests[strings.TrimPrefix(strings.TrimSpace(line), "func ")] = true
	}
	named := 0
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(string(text), -1) {
		name := m[1]
		switch {
		case regexp.MustCompile(`^(Test|Fuzz)[A-Z]\w*$`).MatchString(name):
			named++
			if !tests[name] {
				t.Errorf("the threat model names %s, which does not exist", name)
			}
		case strings.HasSuffix(name, ".go"):
			if _, err := os.Stat("../../" + name); err != nil {
				t.Errorf("the threat model names %s, which does not exist", name)
			}
		}
	}
	if named < 40 {
		t.Fatalf("found only %d tests in the threat model", named)
	}
}
