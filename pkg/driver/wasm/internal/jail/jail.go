// Package jail confines a worker process: what its parent takes away before it
// starts (RestrictThread), what it gives up itself before it looks at a guest
// (Confine), and the memory group that its parent puts it in (Group). It knows
// nothing of what runs inside.
package jail

// Config is what a worker gives up. The zero value gives up the most.
type Config struct {
	Root  string // becomes the root directory, if running as root; else only the working directory
	UID   int    // user and group to become, if running as root; 0 = 65534
	Files uint64 // open files; 0 = 256
	File  uint64 // bytes of one written file; 0 = 1 GiB
}

// Applied says what holds now, for status and logs.
type Applied struct {
	Root    string   // the working root, seen from inside: "/" when confined to Config.Root
	Held    []string // measures that are in force
	Missing []string // measures that this platform or these rights do not allow, and why
}

func (a *Applied) held(what string) { a.Held = append(a.Held, what) }
func (a *Applied) missing(what string, err error) {
	a.Missing = append(a.Missing, what+": "+err.Error())
}

func (c Config) withDefaults() Config {
	if c.UID == 0 {
		c.UID = Nobody
	}
	if c.Files == 0 {
		c.Files = 256
	}
	if c.File == 0 {
		c.File = 1 << 30
	}
	return c
}

// Nobody is the user of a worker that has none of its own.
const Nobody = 65534
