package main

import (
	"strings"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
	"peercompute/pkg/mesh"
)

func cmdImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Give container images to peers without a registry",
		Long: `An image of this machine's engine goes to a peer directly: only the layers that it
lacks, and only if it lets you. There it is called by its digest, and nobody but you
may run it. "peerctl deploy IMAGE --push" does it on the way.`,
		Example: `  peerctl image push myapp:1 --peer bob
  peerctl image ls --peer bob
  peerctl image prune --peer bob`,
		Args: cobra.ArbitraryArgs,
		RunE: onlySubcommands,
	}
	cmd.AddCommand(cmdImagePush(a), cmdImageLs(a), cmdImagePrune(a))
	return cmd
}

func (a *app) showImages(images []control.Image) error {
	if a.json() {
		return a.printJSON(images)
	}
	t := newTable(a.out, "NAME", "ID", "OWNER", "PEER", "SIZE", "STATE", "WORKLOADS", "AGE")
	for _, i := range images {
		used := ""
		if i.Used > 0 {
			used = plural(i.Used, "workload")
		}
		t.row(i.Name, shortImage(i.ID), i.Owner, i.Peer, formatSize(i.Size), i.State, used, a.age(i.Created))
	}
	return t.flush()
}

// imageText is an image reference for people. That of a pushed image says nothing but
// who pushed it, which is the workload's owner, and its ID.
func imageText(ref string) string {
	if _, id, ok := mesh.ParsePushed(ref); ok {
		return "pushed, " + id
	}
	return ref
}

// shortImage is enough of an image's ID to tell it from others.
func shortImage(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}
