//! The presets: named combinations of what the axes offer.

/// A preset: name, what it is, its TOML.
pub struct Preset {
    pub name: &'static str,
    pub summary: &'static str,
    pub toml: &'static str,
}

/// The presets, in the order in which they are listed.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "adamant",
        summary: "the default: PGD guided by the pooled features of the start, the radius growing from zero",
        toml: include_str!("recipes/adamant.toml"),
    },
    Preset {
        name: "adamant-robust",
        summary: "adamant with more robustness, and less clean accuracy",
        toml: include_str!("recipes/adamant-robust.toml"),
    },
    Preset {
        name: "adamant-edge",
        summary: "for devices: one attack step, guided by the map, with a guard against catastrophic overfitting",
        toml: include_str!("recipes/adamant-edge.toml"),
    },
    Preset {
        name: "standard",
        summary: "plain training on clean images, as `adamant train` does",
        toml: include_str!("recipes/standard.toml"),
    },
    Preset {
        name: "madry",
        summary: "PGD adversarial training (Madry et al., 2018)",
        toml: include_str!("recipes/madry.toml"),
    },
    Preset {
        name: "mixed",
        summary: "clean and adversarial images, half each (DRA, equation 4)",
        toml: include_str!("recipes/mixed.toml"),
    },
    Preset {
        name: "rst",
        summary: "clean images, and adversarial ones with a weight (robust self-training, DRA, equation 5)",
        toml: include_str!("recipes/rst.toml"),
    },
    Preset {
        name: "trades",
        summary: "cross-entropy on clean images, KL to adversarial ones (Zhang et al., 2019)",
        toml: include_str!("recipes/trades.toml"),
    },
    Preset {
        name: "mart",
        summary: "boosted cross-entropy, and KL where the model is in doubt (Wang et al., 2020)",
        toml: include_str!("recipes/mart.toml"),
    },
    Preset {
        name: "alp",
        summary: "adversarial logit pairing (Kannan et al., 2018)",
        toml: include_str!("recipes/alp.toml"),
    },
    Preset {
        name: "fat",
        summary: "PGD that stops at friendly images, near the boundary (Zhang et al., 2020)",
        toml: include_str!("recipes/fat.toml"),
    },
    Preset {
        name: "fat-trades",
        summary: "friendly images with the loss of trades (Zhang et al., 2020)",
        toml: include_str!("recipes/fat-trades.toml"),
    },
    Preset {
        name: "fat-mart",
        summary: "friendly images with the loss of mart (Zhang et al., 2020)",
        toml: include_str!("recipes/fat-mart.toml"),
    },
    Preset {
        name: "fast",
        summary: "one step from a random start, guarded against collapse (Wong et al., 2020)",
        toml: include_str!("recipes/fast.toml"),
    },
    Preset {
        name: "free",
        summary: "the gradient of each update moves the images, too (Shafahi et al., 2019)",
        toml: include_str!("recipes/free.toml"),
    },
    Preset {
        name: "yopo",
        summary: "steps through the first layer alone between few whole passes (Zhang et al., 2019)",
        toml: include_str!("recipes/yopo.toml"),
    },
    Preset {
        name: "atta",
        summary: "one step from where the attack ended an epoch before (Zheng et al., 2020)",
        toml: include_str!("recipes/atta.toml"),
    },
    Preset {
        name: "mixup-at",
        summary: "attacked mixtures of two images (Rice et al., 2020)",
        toml: include_str!("recipes/mixup-at.toml"),
    },
    Preset {
        name: "interpolated-at",
        summary: "mixtures of clean and mixtures of attacked images (Lamb et al., 2019)",
        toml: include_str!("recipes/interpolated-at.toml"),
    },
    Preset {
        name: "mma",
        summary: "images at the boundary, where it is near (Ding et al., 2020)",
        toml: include_str!("recipes/mma.toml"),
    },
    Preset {
        name: "lbgat",
        summary: "a second network, trained on clean images, guides (Cui et al., 2021)",
        toml: include_str!("recipes/lbgat.toml"),
    },
    Preset {
        name: "aft",
        summary: "adversarial fine-tuning with a slow start and a fast decay (Jeddi et al., 2020)",
        toml: include_str!("recipes/aft.toml"),
    },
    Preset {
        name: "dra",
        summary: "clean images, and as many along the plain gradient (Hou et al., 2022)",
        toml: include_str!("recipes/dra.toml"),
    },
    Preset {
        name: "dra-madry",
        summary: "the adversary of dra alone (Hou et al., 2022)",
        toml: include_str!("recipes/dra-madry.toml"),
    },
    Preset {
        name: "dra-trades",
        summary: "the adversary of dra with the loss of trades (Hou et al., 2022)",
        toml: include_str!("recipes/dra-trades.toml"),
    },
    Preset {
        name: "daat",
        summary: "PGD training with a radius that follows each image's difficulty (DAAT)",
        toml: include_str!("recipes/daat.toml"),
    },
    Preset {
        name: "daat-trades",
        summary: "the radii of daat with the loss of trades",
        toml: include_str!("recipes/daat-trades.toml"),
    },
    Preset {
        name: "daat-mart",
        summary: "the radii of daat with the loss of mart",
        toml: include_str!("recipes/daat-mart.toml"),
    },
    Preset {
        name: "iaat",
        summary: "PGD training with a radius that each image withstands (Balaji et al., 2019)",
        toml: include_str!("recipes/iaat.toml"),
    },
    Preset {
        name: "awp",
        summary: "PGD training at adversarially moved weights (Wu et al., 2020)",
        toml: include_str!("recipes/awp.toml"),
    },
    Preset {
        name: "arrest",
        summary: "PGD training near a frozen teacher, with noisy replay (Suzuki et al., 2023)",
        toml: include_str!("recipes/arrest.toml"),
    },
    Preset {
        name: "arrest-awp",
        summary: "the same at adversarially moved weights",
        toml: include_str!("recipes/arrest-awp.toml"),
    },
];
