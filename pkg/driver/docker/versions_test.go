package docker

import (
	"strings"
	"testing"
)

func TestKnownHoles(t *testing.T) {
	for version, want := range map[string]string{
		"1.1.5+ds1": "CVE-2024-21626 CVE-2025-31133", "1.1.11": "CVE-2024-21626 CVE-2025-31133", "1.0.3": "CVE-2024-21626 CVE-2025-31133",
		"1.1.12": "CVE-2025-31133", "1.1.15-0ubuntu1": "CVE-2025-31133", "1.2.7": "CVE-2025-31133", "1.3.2": "CVE-2025-31133",
		"1.2.8": "", "v1.2.9": "", "1.3.3": "", "1.3.10": "", "1.4.0": "", "1.5.0": "", "2.0.0": "",
		"unknown": "CVE-2024-21626 CVE-2025-31133", "": "",
	} {
		got := risks(map[string]string{"runc": version, "Engine": "28.0.0"})
		for _, cve := range []string{"CVE-2024-21626", "CVE-2025-31133"} {
			if strings.Contains(got, cve) != strings.Contains(want, cve) {
				t.Errorf("runc %s: got %q, want %q", version, got, want)
			}
		}
		if strings.Contains(got, "Docker") {
			t.Errorf("the engine is blamed: %s", got)
		}
	}
	for version, want := range map[string]bool{"20.10.17": true, "20.10.24+dfsg1": false, "28.2.2": false, "19.03.15": true, "dev": true} {
		if got := risks(map[string]string{"Engine": version, "runc": "1.4.1"}); strings.Contains(got, "CVE-2022-36109") != want {
			t.Errorf("Docker %s: %q", version, got)
		}
	}
}

func FuzzVersions(f *testing.F) {
	f.Add("1.1.5+ds1-1+deb12u1")
	f.Add("v28.0.0-rc.1")
	f.Fuzz(func(t *testing.T, v string) {
		if n, ok := numbers(v); ok && less(n, n) {
			t.Errorf("%q is older than itself", v)
		}
		risks(map[string]string{"runc": v, "Engine": v})
	})
}
