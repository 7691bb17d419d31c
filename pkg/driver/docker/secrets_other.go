//go:build !linux

package docker

func isMemory(string) bool { return false }

func ownDir(string) error { return nil }

func sameDirectory(int, string, string, string) (bool, error) { return false, errOtherProcess }
