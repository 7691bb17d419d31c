package control

import (
	"net/http"
	"strconv"

	"peercompute/pkg/mesh"
)

func (s *Server) jobRoutes(_ *http.ServeMux, get func(string, handler)) {
	w := s.cfg.Workloads
	get("GET /v1/receipts", func(r *http.Request) (any, error) {
		q := ReceiptQuery{Peer: r.URL.Query().Get("peer")}
		if v := r.URL.Query().Get("limit"); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 0 {
				return nil, mesh.Errorf(mesh.Invalid, "limit=%q is not a number", v)
			}
			q.Limit = n
		}
		return w.Receipts(r.Context(), q)
	})
	get("GET /v1/receipts/{id}", func(r *http.Request) (any, error) { return w.Receipt(r.Context(), r.PathValue("id")) })
	get("POST /v1/receipts/check", func(r *http.Request) (any, error) {
		f, err := body[ReceiptFile](r)
		if err != nil {
			return nil, err
		}
		return w.CheckReceipt(r.Context(), f)
	})
}
