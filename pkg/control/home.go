package control

import (
	"os"
	"path/filepath"

	"peercompute/pkg/mesh"
)

// HomeEnv names the environment variable that says where a node's home is.
const HomeEnv = "PEERCOMPUTE_HOME"

// DefaultHome is the home directory of a node when no flag names one: the value
// of HomeEnv, else "peercompute" in the user's configuration directory. Every
// program uses this one answer, so that a client finds the node started beside
// it. The directory need not exist.
func DefaultHome() (string, error) {
	if home := os.Getenv(HomeEnv); home != "" {
		return home, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", mesh.Errorf(mesh.Invalid, "cannot tell where this user's configuration is kept").
			WithHint("name a home with --home DIR, or set %s", HomeEnv).Because(err)
	}
	return filepath.Join(dir, "peercompute"), nil
}
