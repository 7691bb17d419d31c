//go:build !linux

package jail

import (
	"context"
	"errors"
)

// Group limits nothing on this platform.
type Group struct{}

// NewGroup fails: control groups exist on Linux only.
func NewGroup(parent, name string, limit int64) (*Group, error) {
	return nil, errors.New("memory groups exist on Linux only")
}

// Add does nothing.
func (g *Group) Add(int) error { return nil }

// Kills is always 0.
func (g *Group) Kills() int64 { return 0 }

// Remove does nothing.
func (g *Group) Remove(context.Context) error { return nil }

// RemoveStale does nothing.
func RemoveStale(parent string, names func(name string) bool) {}
