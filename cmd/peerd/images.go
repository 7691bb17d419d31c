package main

import "peercompute/pkg/node"

// manifest is the digest of the manifest of an image that a peer pushed.
func (rt *runtimes) manifest(ref string) string {
	return node.ImageManifest(rt.member.Load().Store, ref)
}
