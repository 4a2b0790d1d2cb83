/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Why something was refused. The numbers are the uapi's, which is included here
 * and nowhere else below the ioctls: it is the one list of reasons.
 */
#ifndef VTDS_REASON_H
#define VTDS_REASON_H

#include <linux/vtd_shadow.h>

/**
 * struct vtds_reject - one refusal, as reported to the VMM
 * @reason: why
 * @requester_id: an endpoint concerned
 * @level: level of the table that holds the entry, 0 for root and such tables
 * @iova: first IOVA concerned
 * @gpa: what the entry pointed to, or where the table is
 */
struct vtds_reject {
	enum vtds_reason reason;
	u16 requester_id;
	u8 level;
	u64 iova;
	u64 gpa;
};

#endif /* VTDS_REASON_H */
