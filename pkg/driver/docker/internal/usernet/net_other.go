//go:build !linux

package usernet

import "peercompute/pkg/mesh"

// Net is a way out. There is none here.
type Net struct{}

// Available says whether this machine has what a way out is made of.
func Available() error {
	return mesh.Errorf(mesh.Unsupported, "containers with a network run on Linux peers only")
}

// Open fails.
func Open(Config) (*Net, error) { return nil, Available() }

// Close does nothing.
func (n *Net) Close() error { return nil }
