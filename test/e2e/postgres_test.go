package e2e

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"peercompute/pkg/driver/docker/dockertest"
	"peercompute/pkg/testkit"
	"peercompute/test/internal/testmesh"
)

const password = "a password of the database's"

// entrypoint does what that of the image "postgres" does for a user that /etc/passwd does
// not list, as the users of containers here are: initdb wants to know its name.
const entrypoint = `#!/bin/sh
set -e
export PGDATA=/var/lib/postgresql/data LC_ALL=C
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	echo "postgres:x:$(id -u):$(id -g):PostgreSQL:$PGDATA:/bin/false" >/tmp/passwd
	echo "postgres:x:$(id -g):" >/tmp/group
	LD_PRELOAD=/usr/lib/libnss_wrapper.so NSS_WRAPPER_PASSWD=/tmp/passwd NSS_WRAPPER_GROUP=/tmp/group \
		initdb --username=postgres --pwfile=/run/secrets/postgres --auth=scram-sha-256
fi
exec postgres "$@"
`

// postgresDir is where the distribution put its newest PostgreSQL.
func postgresDir(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Fatal("PostgreSQL is not there", err)
	}
	return filepath.Dir(filepath.Dir(found[len(found)-1]))
}

// postgres is a layer with PostgreSQL as its package installed it.
func postgres(t *testing.T) []byte {
	t.Helper()
	dir := postgresDir(t)
	files := map[string][]byte{
		"entrypoint": []byte(entrypoint),
		"etc/passwd": []byte("root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n"),
		"etc/group":  []byte("root:x:0:\npostgres:x:999:\n"),
		// Where it puts its socket and its rows; the root itself is read-only.
		"var/run/postgresql/.keep": nil,
		"var/lib/postgresql/.keep": nil,
	}
	for _, program := range []string{"initdb", "postgres"} {
		addProgram(t, files, filepath.Join(dir, "bin", program), filepath.Join(dir, "bin", program))
	}
	addProgram(t, files, "dash", "/bin/sh")
	addProgram(t, files, "id", "/usr/bin/id")
	addFile(t, files, testkit.Library("libnss_wrapper.so"), "/usr/lib/libnss_wrapper.so")
	files["usr/bin/initdb"] = []byte("#!/bin/sh\nexec " + dir + "/bin/initdb \"$@\"\n")
	files["usr/bin/postgres"] = []byte("#!/bin/sh\nexec " + dir + "/bin/postgres \"$@\"\n")
	share := strings.Replace(dir, "/usr/lib/", "/usr/share/", 1)
	for _, root := range []string{filepath.Join(dir, "lib"), share} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "bitcode" || d.Name() == "man"), strings.HasPrefix(d.Name(), "llvmjit"):
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			case d.IsDir():
				return nil
			}
			data, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a link to what another package would bring
			}
			files[strings.TrimPrefix(path, "/")] = data
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return dockertest.Layer(t, files)
}

// query runs SQL through a forwarded port, and returns what it answers, bare.
func query(t *testing.T, n *testmesh.Node, name, sql string) (string, error) {
	t.Helper()
	addr, done := forwarded(t, n, name, "5432")
	defer done()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(postgresDir(t), "bin", "psql"), "-h", host, "-p", port, "-U", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", sql)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGCONNECT_TIMEOUT=10")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = errors.New(string(exit.Stderr))
	}
	return strings.TrimSpace(string(out)), err
}
