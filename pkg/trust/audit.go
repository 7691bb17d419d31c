package trust

import (
	"fmt"
	"strings"
	"time"

	"peercompute/pkg/audit"
	"peercompute/pkg/store"
)

// note records a change of the list in the audit log, in its own transaction.
func (l *List) note(tx *store.Tx, actor, action, subject, detail string) error {
	return audit.Append(tx, audit.Entry{
		Time: l.now(), Actor: actor, Action: action, Subject: subject, Outcome: audit.Done, Detail: detail,
	})
}

// describe is the grant in one line. The trust log has the whole of it.
func (g Grant) describe() string {
	q := g.Quota
	return fmt.Sprintf("%s: %s; %d workloads, %d mCPU, %d B memory, %d B disk, %d names, %d requests a minute",
		g.Name, allowed(g.Allow), q.Workloads, q.Resources.MilliCPU, q.Resources.Memory, q.Resources.Disk, q.Names, q.Requests)
}

// describe is the invite in one line, without its secret.
func (i Invite) describe() string {
	return fmt.Sprintf("%s; %d uses until %s", allowed(i.Allow), i.Uses, i.Expires.UTC().Format(time.RFC3339))
}

func allowed(a Allow) string {
	if a == 0 {
		return "may nothing"
	}
	return "may " + strings.Join(a.Names(), ", ")
}
