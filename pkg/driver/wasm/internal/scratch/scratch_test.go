package scratch

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"peercompute/pkg/driver/wasm/internal/errno"
)

func make1(t testing.TB, c Config) *FS {
	t.Helper()
	fs, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fs.Close)
	return fs
}

// write makes a file with this content.
func (fs *FS) write(path string, b []byte) errno.Errno {
	n, e := fs.Open(fs.root, path, How{Create: true, Truncate: true, Follow: true})
	if e != 0 {
		return e
	}
	done, e := fs.WriteAt(n, b, 0)
	if e == 0 && done < len(b) {
		e = errno.NoSpace
	}
	return e
}

func (fs *FS) read(path string) ([]byte, errno.Errno) {
	n, e := fs.Open(fs.root, path, How{Follow: true})
	if e != 0 {
		return nil, e
	}
	b := make([]byte, n.size)
	_, e = fs.ReadAt(n, b, 0)
	return b, e
}

func (fs *FS) list(path string) ([]string, errno.Errno) {
	n, e := fs.Open(fs.root, path, How{Follow: true, Directory: true})
	if e != 0 {
		return nil, e
	}
	var names []string
	for cookie := uint64(0); ; {
		x, ok := n.Read(cookie)
		if !ok {
			return names[2:], 0
		}
		names, cookie = append(names, x.Name), x.Next
	}
}

// The file system does what the kernel's does, step by step.
func TestLikeTheKernel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		top, err := os.MkdirTemp("", "scratch")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(top)
		root := filepath.Join(top, "1", "2", "3", "4") // a link may lead up, out of the root but not out of here
		if err := os.MkdirAll(root, 0o700); err != nil {
			t.Fatal(err)
		}
		fs, err := New(Config{Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer fs.Close()
		names := rapid.SampledFrom([]string{"a", "b", "c", "a/b", "a/b/c", "b/a", "c/a", "./a", "a/./b", "a/b/../c", "b/../a", "c/x", "a/b/c/d"})
		at := func(p string) string { return root + "/" + p } // not Join, which would tidy up
		agree := func(what string, ours errno.Errno, theirs error) {
			if ours == errno.NotCapable {
				return // a link that moved may lead out, which the kernel allows
			}
			if (ours == 0) != (theirs == nil) {
				t.Fatalf("%s: ours %v, the kernel's %v", what, ours, theirs)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				p, b := names.Draw(t, "path"), bytes.Repeat([]byte{byte(rapid.IntRange(0, 255).Draw(t, "byte"))}, rapid.SampledFrom([]int{0, 1, 4095, 4096, 9000}).Draw(t, "size"))
				agree("write "+p, fs.write(p, b), os.WriteFile(at(p), b, 0o600))
			},
			"patch": func(t *rapid.T) {
				p, off := names.Draw(t, "path"), rapid.SampledFrom([]int64{0, 1, 5000, 4096}).Draw(t, "offset")
				n, e := fs.Open(fs.root, p, How{Follow: true})
				f, err := os.OpenFile(at(p), os.O_RDWR, 0)
				if err != nil || e == errno.NotCapable {
					return // reading and listing compare the rest
				}
				defer f.Close()
				agree("open "+p, e, err)
				if _, e := fs.WriteAt(n, []byte("patch"), off); e != 0 {
					t.Fatal(e)
				}
				if _, err := f.WriteAt([]byte("patch"), off); err != nil {
					t.Fatal(err)
				}
			},
			"truncate": func(t *rapid.T) {
				p, size := names.Draw(t, "path"), rapid.SampledFrom([]int64{0, 3, 4096, 4097, 20000}).Draw(t, "size")
				n, e := fs.Open(fs.root, p, How{Follow: true})
				if e == 0 {
					e = fs.Truncate(n, size)
				}
				agree("truncate "+p, e, os.Truncate(at(p), size))
			},
			"mkdir": func(t *rapid.T) {
				p := names.Draw(t, "path")
				agree("mkdir "+p, fs.Mkdir(fs.root, p), os.Mkdir(at(p), 0o700))
			},
			"remove": func(t *rapid.T) {
				p := names.Draw(t, "path")
				e := fs.Unlink(fs.root, p)
				if e == errno.IsDir {
					e = fs.Rmdir(fs.root, p)
				}
				agree("remove "+p, e, os.Remove(at(p)))
			},
			"rename": func(t *rapid.T) {
				p, q := names.Draw(t, "from"), names.Draw(t, "to")
				agree("rename "+p+" "+q, fs.Rename(fs.root, p, fs.root, q), unix.Rename(at(p), at(q)))
			},
			"link": func(t *rapid.T) {
				p, q := names.Draw(t, "from"), names.Draw(t, "to")
				agree("link "+p+" "+q, fs.Link(fs.root, p, false, fs.root, q), os.Link(at(p), at(q)))
			},
			"symlink": func(t *rapid.T) {
				p, q := rapid.SampledFrom([]string{"a", "b", "b/a", "../a", "./c", "nowhere"}).Draw(t, "target"), names.Draw(t, "path")
				agree("symlink "+q, fs.Symlink(p, fs.root, q), os.Symlink(p, at(q)))
			},
			"": func(t *rapid.T) {
				for _, p := range []string{".", "a", "a/b"} {
					ours, e := fs.list(p)
					theirs, err := list(at(p))
					agree("list "+p, e, err)
					slices.Sort(ours)
					if !slices.Equal(ours, theirs) {
						t.Fatalf("%s has %q, the kernel's %q", p, ours, theirs)
					}
				}
				for _, p := range []string{"a", "b", "c", "a/b", "b/a", "c/a"} {
					ours, e := fs.read(p)
					if e == errno.NotCapable {
						continue
					}
					theirs, err := os.ReadFile(at(p))
					if os.IsNotExist(err) || err == nil {
						agree("read "+p, e, err)
					}
					if err == nil && !bytes.Equal(ours, theirs) {
						t.Fatalf("%s has %d bytes, the kernel's %d", p, len(ours), len(theirs))
					}
				}
			},
		})
	})
}

func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func TestNothingAboveTheRoot(t *testing.T) {
	fs := make1(t, Config{Bytes: 1 << 20})
	fs.Mkdir(fs.root, "d")
	if e := fs.Symlink("/etc", fs.root, "d/absolute"); e != errno.NotCapable {
		t.Errorf("a link to /etc: %v", e)
	}
	if e := fs.Symlink("../..", fs.root, "d/up"); e != 0 {
		t.Fatal(e)
	}
	for _, p := range []string{"..", "../x", "d/../..", "d/../../x", "/x", "/", "d/up", "d/up/x"} {
		if _, e := fs.Lookup(fs.root, p, true); e != errno.NotCapable {
			t.Errorf("%s: %v, want %v", p, e, errno.NotCapable)
		}
	}
	if n, e := fs.Lookup(fs.root, "d/../d/..", true); e != 0 || n != fs.root {
		t.Errorf("within: %v", e)
	}
	fs.Symlink("l", fs.root, "l")
	if _, e := fs.Lookup(fs.root, "l", true); e != errno.Loop {
		t.Errorf("a link to itself: %v", e)
	}
}

func TestBytesAreCapped(t *testing.T) {
	reserved := int64(0)
	c := Config{Bytes: 1 << 20, Release: func(n int64) { reserved -= n }, Reserve: func(n int64) bool {
		if reserved+n > 512<<10 {
			return false
		}
		reserved += n
		return true
	}}
	fs := make1(t, c)
	big := make([]byte, 400<<10)
	if e := fs.write("a", big); e != 0 {
		t.Fatal(e)
	}
	n, _ := fs.Open(fs.root, "b", How{Create: true})
	done, e := fs.WriteAt(n, big, 0)
	if e != 0 || done != 112<<10 {
		t.Errorf("wrote %d bytes, %v; want what was left", done, e)
	}
	if _, e := fs.WriteAt(n, []byte("x"), n.size); e != errno.NoSpace {
		t.Errorf("one more byte: %v", e)
	}
	for _, size := range []int64{2 << 20, 1 << 62} {
		if e := fs.Truncate(n, size); e == 0 {
			t.Errorf("truncated to %d bytes", size)
		}
		if _, e := fs.WriteAt(n, []byte("x"), size); e == 0 {
			t.Errorf("wrote at %d", size)
		}
	}
	if n.size != 112<<10 {
		t.Errorf("what failed left %d bytes", n.size)
	}
	fs.Unlink(fs.root, "a")
	if e := fs.write("c", big); e != 0 {
		t.Errorf("room that was given back is not used: %v", e)
	}
	if got, _ := fs.read("c"); !bytes.Equal(got, big) {
		t.Error("it holds what another file held")
	}
	if reserved > 512<<10 || reserved == 0 {
		t.Errorf("%d bytes are reserved", reserved)
	}
	fs.Close()
	if reserved != 0 {
		t.Errorf("%d bytes stay reserved", reserved)
	}
}

// An open file outlives its name, and its room comes back when it is closed.
func TestUnlinkedFileStaysUntilClosed(t *testing.T) {
	fs := make1(t, Config{Bytes: 64 << 10})
	n, _ := fs.Open(fs.root, "a", How{Create: true})
	n.Open()
	fs.WriteAt(n, []byte("still here"), 0)
	fs.Unlink(fs.root, "a")
	b := make([]byte, 10)
	if _, e := fs.ReadAt(n, b, 0); e != 0 || string(b) != "still here" {
		t.Errorf("got %q, %v", b, e)
	}
	fs.Release(n)
	if fs.Used() != 0 || fs.nodes != 1 {
		t.Errorf("%d bytes, %d nodes are left", fs.Used(), fs.nodes)
	}
}

func TestFilesAreCapped(t *testing.T) {
	fs := make1(t, Config{Bytes: 1 << 20})
	made := 0
	for ; made < 100_000; made++ {
		if e := fs.Mkdir(fs.root, strings.Repeat("x", made%200)+string(rune('a'+made%26))+filepath.Base(string(rune(0x4e00+made)))); e != 0 {
			if e != errno.NoSpace {
				t.Fatal(e)
			}
			break
		}
	}
	if made < 64 || made > maxNodes {
		t.Errorf("%d directories were made", made)
	}
	fs = make1(t, Config{Bytes: 1 << 20})
	fs.write("a", nil)
	made = 0
	for ; made < 100_000; made++ {
		if e := fs.Link(fs.root, "a", false, fs.root, "n"+string(rune(0x4e00+made))); e != 0 {
			break
		}
	}
	if made > maxNodes {
		t.Errorf("%d names were made", made)
	}
}

// A listing that goes on after a change misses nothing that stayed.
func TestListingSurvivesChanges(t *testing.T) {
	fs := make1(t, Config{Bytes: 1 << 20})
	for _, n := range []string{"a", "b", "c", "d"} {
		fs.write(n, nil)
	}
	var seen []string
	for cookie := uint64(firstCookie); ; {
		x, ok := fs.root.Read(cookie)
		if !ok {
			break
		}
		seen, cookie = append(seen, x.Name), x.Next
		fs.Unlink(fs.root, x.Name)
	}
	if got := strings.Join(seen, ""); got != "abcd" {
		t.Errorf("got %s", got)
	}
}

func FuzzFind(f *testing.F) {
	for _, s := range []string{"a/b", "..", "a/../..", "l/x", "./l/../m", "///", "a//b/", "m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		fs := make1(t, Config{Bytes: 64 << 10})
		fs.Mkdir(fs.root, "a")
		fs.Mkdir(fs.root, "a/b")
		fs.Symlink("a/../l", fs.root, "m")
		fs.Symlink("..", fs.root, "a/l")
		n, e := fs.Lookup(fs.root, path, true)
		if e == 0 && n == nil || e != 0 && n != nil {
			t.Fatalf("%v and %v", n, e)
		}
		fs.Rename(fs.root, path, fs.root, "z")
		fs.Rename(fs.root, "a", fs.root, path)
		if len(fs.root.entries) > 4 {
			t.Fatal("more than there can be")
		}
	})
}
