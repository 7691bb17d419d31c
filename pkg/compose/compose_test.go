package compose

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"peercompute/pkg/mesh"
)

func TestLoad(t *testing.T) {
	text, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Name: "shop.yaml", Dir: "/srv/shop", Text: text, Environ: []string{"COLOUR=red", "PASSED=on"}, Files: map[string][]byte{".env": []byte("COLOUR=green\nTAG=2\n")}}
	if p, needs, err := Load(context.Background(), in); err != nil || len(p.Services) != 0 || !reflect.DeepEqual(needs, []string{"web.env"}) {
		t.Fatalf("without web.env: %+v, needs %q, %v", p, needs, err)
	}
	in.Files["web.env"] = []byte("FROM_FILE=yes\nDATABASE=nowhere\n")
	p, needs, err := Load(context.Background(), in)
	if err != nil || needs != nil {
		t.Fatal(needs, err)
	}
	want := Project{Name: "shop", Secrets: []Secret{{Name: "shop-password", File: "/srv/shop/password.txt"}}, Services: []Service{
		{
			Spec:  mesh.Spec{Name: "shop-cache", Project: "shop", Aliases: []string{"cache"}, Runtime: mesh.Container, Network: "shop", Port: 6379, Restart: mesh.RestartNo, Tmpfs: []string{"/run"}},
			Build: &Build{Dir: "/srv/shop/cache", Dockerfile: "Dockerfile"},
		},
		{Spec: mesh.Spec{
			Name: "shop-db", Project: "shop", Aliases: []string{"db"}, Runtime: mesh.Container, Image: "postgres:17", Network: "shop", Port: 5432, Restart: mesh.RestartAlways,
			Resources: mesh.Resources{Memory: 512 << 20, PIDs: 200},
			Volumes:   []mesh.VolumeMount{{Name: "shop-data", Target: "/var/lib/postgresql/data", Size: 2 << 30}, {Name: "shared-conf", Target: "/srv/conf", ReadOnly: true}},
			Secrets:   []mesh.SecretMount{{Name: "shop-password", Target: "password"}, {Name: "shop-cert", Target: "tls.pem"}},
			Health:    &mesh.Health{Check: mesh.CheckCommand, Command: []string{"/bin/sh", "-c", "pg_isready -U shop"}, Interval: 5 * time.Second, Timeout: 2 * time.Second, Retries: 4},
		}},
		{Spec: mesh.Spec{
			Name: "shop-web", Project: "shop", Aliases: []string{"web"}, Runtime: mesh.Container, Image: "shop:2", Network: "shop", Port: 8080, Publish: &mesh.Publication{},
			Args: []string{"serve", "--port", "8080"}, Env: []string{"COLOUR=red", "DATABASE=db:5432", "FROM_FILE=yes", "PASSED=on"},
			Resources: mesh.Resources{MilliCPU: 500, Memory: 256 << 20},
		}},
	}}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got\n%+v\nwant\n%+v", p, want)
	}
}

// What is not supported is named, all at once.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"privilege and more": {"services:\n web:\n  image: a\n  privileged: true\n  volumes: ['/:/host']\n  network_mode: host\n  pid: host\n  cap_add: [SYS_ADMIN]\nsecrets: {k: {environment: K}}\n", []string{
			"services.web.privileged is not supported", "services.web: /:/host is a directory of a host", "services.web.network_mode is not supported",
			"services.web.pid is not supported", "services.web.cap_add is not supported", "secrets.k.environment is not supported",
		}},
		"a missing secret":   {"services:\n web:\n  image: a\n  secrets: [gone]\n", []string{"undefined secret gone"}},
		"a secret":           {"services:\n web:\n  image: a\n  secrets: [{source: k, mode: 0440}, {source: k, target: /etc/k}]\nsecrets: {k: {external: true}}\n", []string{"uid, gid and mode of the secret k", `a file called "/etc/k"`}},
		"tmpfs":              {"services:\n web:\n  image: a\n  tmpfs: ['/run:size=1g', /proc]\n", []string{`"/proc" cannot be`}},
		"UDP":                {"services:\n web:\n  image: a\n  ports: ['53:53/udp']\n", []string{"udp port cannot be published"}},
		"an unnamed volume":  {"services:\n web:\n  image: a\n  volumes: ['/data', './here:/y']\n", []string{"the volume at /data has no name", "/srv/a/here:/y is a directory of a host"}},
		"a missing volume":   {"services:\n web:\n  image: a\n  volumes: ['gone:/x']\n", []string{"undefined volume gone"}},
		"an odd mount":       {"services:\n web:\n  image: a\n  volumes: [{type: npipe, source: a, target: /x}]\n", []string{`mount of type "npipe" is not supported`}},
		"a volume's driver":  {"services:\n web:\n  image: a\n  volumes: ['d:/d']\nvolumes: {d: {driver: nfs, driver_opts: {device: ':/x'}}}\n", []string{`the driver "nfs" is not supported`, "volumes.d.driver_opts.device is not supported"}},
		"a volume's size":    {"services:\n web:\n  image: a\n  volumes: ['d:/d']\nvolumes: {d: {driver_opts: {size: 1k}}}\n", []string{`the size "1k" is not one from 16M to 1T`}},
		"alike networks":     {"services:\n web:\n  image: a\n  networks: [a-b, a_b]\nnetworks: {a-b: {}, a_b: {}}\n", []string{"a-b and a_b would both be called a-a-b here"}},
		"alike services":     {"services:\n a-b:\n  image: a\n a_b:\n  image: a\n", []string{"a-b and a_b would both be called a-a-b here"}},
		"alike volumes":      {"services:\n web:\n  image: a\nvolumes: {a-b: {}, a_b: {}}\n", []string{"a-b and a_b would both be called a-a-b here"}},
		"a fixed address":    {"services:\n web:\n  image: a\n  networks: {a: {ipv4_address: 192.0.2.7}}\nnetworks: {a: {ipam: {}}}\n", []string{"services.web.networks.a.ipv4_address is not supported", "networks.a.ipam is not supported"}},
		"a shared volume":    {"services:\n a:\n  image: a\n  volumes: ['data:/d']\n b:\n  image: a\n  volumes: ['data:/e:ro']\nvolumes: {data: {}}\n", []string{"volumes.data: a and b share it"}},
		"egress":             {"services:\n web:\n  image: a\n  x-egress: everything\n", []string{`x-egress: "everything" is not none`}},
		"egress as a list":   {"services:\n web:\n  image: a\n  x-egress: [internet]\n", []string{`x-egress: "" is not none`}},
		"an x-service":       {"services:\n x-web:\n  image: a\n  privileged: true\n", []string{"services.x-web.privileged is not supported"}},
		"an alias":           {"services:\n web:\n  image: a\n  networks: {a: {aliases: [api.example.org]}}\nnetworks: {a: {}}\n", []string{`alias "api.example.org"`}},
		"a label file":       {"services:\n web:\n  image: a\n  label_file: /etc/passwd\n", []string{"label_file is not supported"}},
		"no entrypoint":      {"services:\n web:\n  image: a\n  entrypoint: []\n", []string{"an empty entrypoint"}},
		"a Dockerfile":       {"services:\n web:\n  build: {context: ./x, dockerfile: ../Dockerfile}\n", []string{"lies outside the build context"}},
		"a far build":        {"services:\n web:\n  build: https://example.org/x.git\n", []string{"is not a directory of this machine"}},
		"an idle profile":    {"services:\n web:\n  image: a\n  profiles: [debug]\n", []string{"--profile debug"}},
		"an end and a start": {"services:\n a:\n  image: a\n  depends_on: {b: {condition: service_completed_successfully}}\n b:\n  image: b\n  restart: always\n", []string{"services.b: others wait for it to end"}},
		"a network's driver": {"services:\n web:\n  image: a\n  networks: [a]\nnetworks: {a: {driver: host}}\n", []string{"networks.a: the driver host is not supported"}},
		"a build's rest":     {"services:\n web:\n  build: {context: ., network: host}\n", []string{"services.web.build.network is not supported"}},
		"include":            {"include: [other.yaml]\nservices:\n web:\n  image: a\n", []string{"include is not supported"}},
		"extends":            {"services:\n web:\n  image: a\n  extends: {file: b.yaml, service: c}\n", []string{"services.web.extends.file is not supported"}},
		"a circle":           {"services:\n a:\n  image: a\n  depends_on: [b]\n b:\n  image: b\n  depends_on: [a]\n", []string{"cycle"}},
		"security_opt":       {"services:\n a:\n  image: a\n  security_opt: ['seccomp=unconfined']\n", []string{`security_opt "seccomp=unconfined" is not supported`}},
		"no label":           {"services:\n a:\n  image: a\n  container_name: A_b\n", []string{`name "A_b" is not a DNS label`}},
		"no services":        {"name: x\n", []string{"services"}},
		"nothing":            {"", []string{"it is empty"}},
		"a tag":              {"services:\n web:\n  image: a\n  ports: !reset []\n", []string{"the tag !reset is not supported"}},
		"not YAML":           {"a: [", []string{"yaml"}},
		"a missing env file": {"services:\n a:\n  image: a\n  env_file: gone.env\n", []string{"gone.env"}},
		"by its schema":      {"services:\n a:\n  image: [1]\n", []string{"services.a.image"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Load(context.Background(), Input{Name: "compose.yaml", Dir: "/srv/a", Text: []byte(c.text), Files: map[string][]byte{"gone.env": nil}})
			if mesh.KindOf(err) != mesh.Invalid || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%v, want one line that says why", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("it does not say %q:\n%v", w, err)
				}
			}
		})
	}
}

// Whatever a file names, nothing of the disk is read: what is there would show.
func TestReadsNoFile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"other.yaml": "services: {b: {image: 'there:1'}}\n", "labels": "a=b\n", "one.env": "FOUND=yes\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for text, want := range map[string]string{
		"services:\n a:\n  extends: {file: other.yaml, service: b}\n": "neither an image nor a build",
		"include: [other.yaml]\nservices:\n a:\n  image: x\n":         "include is not supported",
		"services:\n a:\n  image: x\n  label_file: absent\n":          "label_file is not supported",
	} {
		_, _, err := Load(context.Background(), Input{Name: "compose.yaml", Dir: dir, Text: []byte(text)})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "no such file") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	p, needs, err := Load(context.Background(), Input{Name: "compose.yaml", Dir: dir, Text: []byte("services:\n a:\n  image: x\n  env_file: one.env\n")})
	if err != nil || len(p.Services) != 0 || len(needs) != 1 {
		t.Errorf("an environment file: %+v, %q, %v", p, needs, err)
	}
}

// Whatever a file says, no workload comes of it that is not valid, and nothing panics.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("services:\n a: &a\n  image: a\n b: *a\n")
	f.Add("services:\n a:\n  image: ${X:?no}\n  ports: [{target: 70000, published: '1-9'}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, _, err := Load(context.Background(), Input{Name: "compose.yaml", Dir: "/srv/a", Text: []byte(text), Files: map[string][]byte{"web.env": []byte("A=1")}})
		if err != nil {
			if mesh.KindOf(err) != mesh.Invalid {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		names := map[string]bool{}
		for _, s := range p.Services {
			if names[s.Spec.Name] {
				t.Errorf("%q gives two workloads the name %s", text, s.Spec.Name)
			}
			names[s.Spec.Name] = true
			spec := s.Spec
			if s.Build != nil {
				spec.Image = "built"
			}
			if err := spec.Validate(); err != nil || len(p.Services) > maxServices {
				t.Errorf("%q gives %+v: %v", text, spec, err)
			}
		}
	})
}
