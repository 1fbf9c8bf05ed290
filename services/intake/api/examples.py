"""The examples that OpenAPI shows: a master of a county enterprise asks for certification and allowance."""

FILING = {
    "channel": "online",
    "applicant": {"kind": "employer"},
    "beneficiary": {
        "name": "王小明",
        "documents": [{"type": "resident_identity_card", "number": "410522199003070016", "from": "2016-05-01"}],
        "phone": "+86 13800000000",
        "links": [
            {
                "relation": "spouse",
                "person": {
                    "name": "阿依古丽·买买提",
                    "documents": [{"type": "resident_identity_card", "number": "410522199105200029"}],
                },
            }
        ],
    },
    "handler": {
        "person": {
            "name": "李经办",
            "documents": [{"type": "resident_identity_card", "number": "410522198811110026"}],
        },
        "authority": {
            "kind": "employer_mandate",
            "from": "2026-01-01",
            "to": "2099-12-31",
            "evidence": "单位授权书〔2026〕3 号",
        },
    },
    "employer": {
        "name": "安阳示例制造有限公司",
        "credit_code": "91410522MA0000001E",
        "kind": "enterprise",
        "status": "active",
        "affiliations": [
            {"kind": "fiscal", "treasury": "410522", "evidence": "财政隶属关系证明", "from": "2021-03-23", "to": None}
        ],
    },
    "payee_account": {
        "holder": "王小明",
        "bank": "中国银行安阳分行",
        "branch_no": "104496000017",
        "number": "6217000010001234567",
    },
    "items": [
        {"code": "talent_certification", "category": "master"},
        {"code": "living_allowance"},
    ],
    "materials": [
        {"code": "identity_document", "evidence": "electronic_licence", "reference": "IDC-410522-0001"},
        {"code": "degree_certificate", "evidence": "electronic_licence", "reference": "XL-2015-000123"},
        {"code": "labour_contract", "evidence": "electronic_licence", "reference": "LD-2026-000045"},
    ],
    "external_refs": [{"system": "henan_portal", "kind": "case", "value": "HN-2026-000001"}],
}

CORRECTION = {
    "materials": [{"code": "labour_contract", "evidence": "promised", "by": "2026-12-01"}],
    "payee_account": FILING["payee_account"],
}

LINE = {"idempotency_key": "HN-2026-000001", "application": FILING}
