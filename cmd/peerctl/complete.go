package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peercompute/pkg/control"
)

// completionTime bounds how long a shell waits for the node after Tab.
const completionTime = time.Second

// completeFlag completes the values of a flag. A mistake here is one of ours, and
// the test of the command tree meets it.
func completeFlag(cmd *cobra.Command, name string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(name, f); err != nil {
		panic(err)
	}
}

// fromNode completes with what the node knows; silently with nothing when it does
// not answer in time.
func (a *app) fromNode(cmd *cobra.Command, list func(context.Context, *control.Client) ([]cobra.Completion, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	var found []cobra.Completion
	_ = a.withClient(func(c *control.Client) (err error) {
		found, err = list(ctx, c)
		return err
	})
	for i := range found {
		// Descriptions hold names that other machines chose; a tab divides the two.
		word, about, _ := strings.Cut(found[i], "\t")
		found[i] = cobra.CompletionWithDesc(clean(word), clean(about))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completePeers completes the names on the trust list.
func (a *app) completePeers(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.peerNames(cmd, nil)
}

// completePeerFlag completes --peer and --gateway, with "self" where it makes sense.
func (a *app) completePeerFlag(first ...cobra.Completion) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return a.peerNames(cmd, first)
	}
}

func (a *app) peerNames(cmd *cobra.Command, first []cobra.Completion) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.fromNode(cmd, func(ctx context.Context, c *control.Client) ([]cobra.Completion, error) {
		peers, err := c.Peers(ctx)
		for _, p := range peers {
			first = append(first, cobra.CompletionWithDesc(p.Name, shortPeer(p.ID)))
		}
		return first, err
	})
}

// completeWorkloads completes the names of workloads.
func (a *app) completeWorkloads(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 && !strings.Contains(cmd.Use, "…") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	peer, _ := cmd.Flags().GetString("peer")
	return a.fromNode(cmd, func(ctx context.Context, c *control.Client) ([]cobra.Completion, error) {
		var found []cobra.Completion
		workloads, err := c.Workloads(ctx, peer)
		for _, w := range workloads {
			found = append(found, cobra.CompletionWithDesc(w.Name, string(w.State)+" on "+w.Peer))
		}
		return found, err
	})
}

// completeModules completes files that can be run.
func completeModules(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []cobra.Completion{"wasm"}, cobra.ShellCompDirectiveFilterFileExt
}
