// Bomb uses up one thing without end, in every second span of 400 ms, so that whoever
// measures what it does to others can compare with the spans between. It
// outlives what is taken from it.
//
//	bomb fork      processes that fork, and whose children do
//	bomb memory    memory, again each time that it is killed for it
//	bomb cpu       processor time, on 64 threads
//	bomb disk      bytes, wherever it may write; says how many there were
//	bomb inode     empty files, wherever it may write; says how many there were
//	bomb log       lines of output
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"
)

func main() {
	if len(os.Args) != 2 {
		os.Exit(2)
	}
	switch os.Args[1] {
	case "fork":
		fork()
	case "memory":
		for {
			_ = exec.Command("/proc/self/exe", "eat").Run()
		}
	case "eat":
		for {
			await()
			b := make([]byte, 16<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			held = append(held, b)
		}
	case "cpu":
		runtime.GOMAXPROCS(64) // or Go would make as many as it may use
		for range 63 {
			go spin()
		}
		spin()
	case "disk":
		for said := false; ; said = true {
			n := int64(0)
			for _, dir := range writable() {
				m := fill(dir)
				if n += m; !said {
					fmt.Printf("wrote %d bytes to %s\n", m, dir)
				}
			}
			if !said {
				fmt.Printf("wrote %d bytes in all\n", n)
			}
		}
	case "inode":
		for said := false; ; said = true {
			for _, dir := range writable() {
				if n := litter(dir); !said {
					fmt.Printf("made %d files in %s\n", n, dir)
				}
			}
		}
	case "log":
		line := make([]byte, 32<<10)
		for i := range line {
			if line[i] = 'x'; i%128 == 127 {
				line[i] = '\n'
			}
		}
		for {
			await()
			_, _ = os.Stdout.Write(line)
		}
	}
	os.Exit(2)
}

var held [][]byte

// span is how long it goes off, and how long it waits then.
const span = 400 // ms of the wall clock

// await waits for the next span, unless it goes off now. It calls nothing of Go's
// runtime, so that it can be called where that is no more.
func await() {
	for {
		var now syscall.Timespec
		_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 0, uintptr(unsafe.Pointer(&now)), 0)
		if (now.Sec*1000+now.Nsec/1_000_000)/span%2 == 1 {
			return
		}
		short := syscall.Timespec{Nsec: 1_000_000}
		_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&short)), 0, 0)
	}
}

func spin() {
	for {
		await()
		for range 100_000 {
			sink.Add(1)
		}
	}
}

var sink atomic.Int64

// fork makes processes that make processes. They have Go's runtime no more, which needs
// threads that a fork leaves behind.
func fork() {
	for {
		await()
		_, _, _ = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	}
}

// writable is every directory in which a file can be made.
func writable() (dirs []string) {
	_ = filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		if path == "/proc" || path == "/sys" || path == "/dev/mqueue" { // no file systems to keep files in
			return fs.SkipDir
		}
		if err != nil || !d.IsDir() {
			return nil
		}
		if f, err := os.CreateTemp(path, "x"); err == nil {
			f.Close()
			os.Remove(f.Name())
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}

// fill writes to one file until there is no room, and removes it.
func fill(dir string) (n int64) {
	f, err := os.CreateTemp(dir, "full")
	if err != nil {
		return 0
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		await()
		m, err := f.Write(block)
		n += int64(m)
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				fmt.Println(err)
			}
			return n
		}
	}
}

// litter makes empty files until no more can be made, and removes them.
func litter(dir string) (n int) {
	mine, err := os.MkdirTemp(dir, "files")
	if err != nil {
		return 0
	}
	defer os.RemoveAll(mine)
	for ; ; n++ {
		await()
		f, err := os.OpenFile(filepath.Join(mine, strconv.Itoa(n)), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				fmt.Println(err)
			}
			return n + 1 // the directory
		}
		f.Close()
	}
}
