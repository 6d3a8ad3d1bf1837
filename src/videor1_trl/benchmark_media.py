"""Where MVBench and VideoMMMU keep the videos of each of their parts."""

# Part -> folder of the original videos, folder of the cut clips of the Hub's branch `video`
MVBENCH_MEDIA = {
    "action_sequence": ("star/Charades_v1_480", "star/Charades_segment"),
    "action_prediction": ("star/Charades_v1_480", "star/Charades_segment"),
    "object_interaction": ("star/Charades_v1_480", "star/Charades_segment"),
    "action_localization": ("sta/sta_video", "sta/sta_video_segment"),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment"),
    "action_antonym": ("ssv2_video", "ssv2_video_mp4"),
    "fine_grained_pose": ("nturgbd", "nturgbd_convert"),
    **dict.fromkeys(
        (
            "object_existence",
            "moving_direction",
            "moving_count",
            "moving_attribute",
            "counterfactual_inference",
        ),
        ("clevrer/video_validation",) * 2,
    ),
    **dict.fromkeys(("object_shuffle", "action_count", "state_change", "character_order"), ("perception/videos",) * 2),
    "fine_grained_action": ("Moments_in_Time_Raw/videos",) * 2,
    "unexpected_action": ("FunQA_test/test",) * 2,
    "scene_transition": ("scene_qa/video",) * 2,
    "egocentric_navigation": ("vlnqa",) * 2,
}

_SUBJECTS = {
    "Art": "Art Art_Theory Design Music",
    "Business": "Accounting Economics Finance Manage Marketing",
    "Science": "Biology Chemistry Geography Math Physics",
    "Medicine": "Basic_Medical_Science Clinical_Medicine Diagnostics_and_Laboratory_Medicine Pharmacy Public_Health",
    "Humanities": "History Literature Sociology Psychology",
    "Engineering": "Agriculture Architecture_and_Engineering Computer_Science Electronics Energy_and_Power Materials "
    "Mechanical_Engineering",
}
# Subject of MMMU, as in a question's id -> folder of its videos
VIDEOMMMU_FOLDERS = {subject: folder for folder, subjects in _SUBJECTS.items() for subject in subjects.split()}
