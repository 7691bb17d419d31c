package mesh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
)

func TestAsError(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "/secret/place", Err: syscall.ENOSPC}
	for name, c := range map[string]struct {
		err  error
		kind Kind
		rule string
		msg  string
	}{
		"ours":         {fmt.Errorf("why: %w", Errorf(Quota, "no more").WithRule("grant.workloads")), Quota, "grant.workloads", "no more"},
		"a full disk":  {fmt.Errorf("cannot store: %w", full), Overloaded, RuleDisk, "this machine's disk is full"},
		"a full quota": {syscall.EDQUOT, Overloaded, RuleDisk, "this machine's disk is full"},
		"timed out":    {context.DeadlineExceeded, Timeout, "", "timed out"},
		"canceled":     {context.Canceled, Canceled, "", "canceled"},
		"another's":    {errors.New("the secret is 42"), Internal, "", "internal error"},
	} {
		e := AsError(c.err)
		if e.Kind != c.kind || e.Rule != c.rule || e.Msg != c.msg {
			t.Errorf("%s: %+v, want %s by %q: %s", name, e, c.kind, c.rule, c.msg)
		}
	}
	if AsError(nil) != nil {
		t.Error("no error became one")
	}
}
